"""Requests that no browser sends, to a page that runs: what a visitor could do to the others."""

import io
import json
import socket
import uuid
import warnings

import httpx
import pytest
from page_fixtures import NAMES, Site, phantom, photograph, write_dicom, write_stage2
from PIL import Image

from medhiera.space.app import LONGEST_QUEUE
from medhiera.space.guard import LARGEST_MESSAGE, LARGEST_UPLOAD


@pytest.fixture(scope="module")
def site(root, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    served = Site(root, write_stage2(folder / "stage2"), folder)
    yield served
    served.end()


class Visitor:
    """A session, by hand."""

    def __init__(self, site):
        self.http = httpx.Client(base_url=site.address, trust_env=False, timeout=60)
        self.session = uuid.uuid4().hex
        self.config = self.http.get("config").json()
        parts = self.config["components"]
        self.title = next(part["props"]["value"] for part in parts if part["type"] == "markdown")
        self.examples = [
            file["image"]["path"]
            for component in parts
            if component["type"] == "gallery"
            for file in component["props"]["value"]
        ]

    def upload(self, content, name="chest.png"):
        answer = self.http.post("gradio_api/upload", files={"files": (name, content)})
        assert answer.status_code == 200, answer.text
        [path] = answer.json()
        return path

    def send(self, kind, data, **more):
        """The event of a component: its status, without waiting for what comes of it."""
        [event] = [
            each for each in self.config["dependencies"] if each["targets"] and each["targets"][0][1] == kind
        ]
        message = {"data": data, "fn_index": event["id"], "session_hash": self.session, "event_data": None}
        return self.http.post("gradio_api/queue/join", json=message | more)

    def result(self):
        """What the page would draw after `send`; None after an error."""
        address = f"gradio_api/queue/data?session_hash={self.session}"
        with self.http.stream("GET", address) as lines:
            for line in lines.iter_lines():
                message = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                if message.get("msg") == "process_completed":
                    return message["output"].get("data")
        return None

    def read(self, path, **more):
        joined = self.send("upload", [file_data(path, **more)])
        assert joined.status_code == 200, joined.text
        return self.result()[2]


def file_data(path, **more):
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}} | more


def png(pixels=None):
    buffer = io.BytesIO()
    (Image.fromarray(phantom() if pixels is None else pixels)).save(buffer, "png")
    return buffer.getvalue()


@pytest.fixture
def visit(site):
    visitors = []

    def come():
        visitors.append(Visitor(site))
        return visitors[-1]

    yield come
    for each in visitors:
        each.http.close()


@pytest.fixture
def visitor(visit):
    return visit()


def test_an_upload_by_hand_is_read_and_gone(visitor, site):
    path = visitor.upload(png())
    text = visitor.read(path)
    assert all(f'data-finding="{name}"' in text for name in NAMES)
    assert site.kept() == []
    assert "The file is no longer there" in visitor.read(path)  # once


def test_a_model_of_own_labels_is_offered_no_phantom(root, visitor, tmp_path):
    """A classifier's examples are the phantoms whose finding it knows: No Finding and Mass, or none."""
    assert len(visitor.examples) == 2 and "choose a phantom" in visitor.title
    folder = write_stage2(tmp_path / "own")
    config = json.loads((folder / "config.json").read_text())
    names = [{"Mass": "SICK", "No Finding": "NORMAL"}.get(name, name) for name in NAMES]
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    (folder / "config.json").write_text(json.dumps(config))
    served = Site(root, folder, tmp_path)
    try:
        other = Visitor(served)
        assert other.examples == [] and "choose" not in other.title
        assert 'data-finding="SICK"' in other.read(other.upload(png()))
        other.http.close()
    finally:
        served.end()


def test_nobody_deletes_an_example(visitor, site):
    before = [visitor.http.get(f"gradio_api/file={path}") for path in visitor.examples]
    assert len(before) == 2 and {each.status_code for each in before} == {200}
    for path in visitor.examples:
        assert visitor.send("upload", [file_data(path)]).status_code == 403
    after = [visitor.http.get(f"gradio_api/file={path}") for path in visitor.examples]
    assert [each.content for each in after] == [each.content for each in before]


def test_two_visitors_with_the_same_file_have_one_each(visit, site):
    first, second = visit(), visit()
    one, other = first.upload(png()), second.upload(png())
    assert one != other
    assert NAMES[0] in first.read(one)
    assert NAMES[0] in second.read(other)
    assert site.kept() == []
    one, other = first.upload(png()), second.upload(png(255 - phantom()))
    assert len({one, other}) == 2
    assert first.read(one) != second.read(other)


@pytest.mark.parametrize("more", [{}, {"is_stream": True}, {"url": "http://127.0.0.1:1/x.png"}])
def test_no_other_file_can_be_named(visitor, site, tmp_path, more):
    (tmp_path / "secret.png").write_bytes(png())
    own = visitor.upload(png())
    folder = own.rpartition("/")[0]
    for path in (
        tmp_path / "secret.png", "/etc/passwd", "medhiera/space/app.py", f"{folder}/../x.png", f"{own}/",
        f"{own}\0",        f"{folder}/./chest.png", "http://127.0.0.1:1/x.png", "http://example.org/x.png", "file:///etc/passwd",
        folder, "", 7, ["/etc/passwd"], None,
    ):  # fmt: skip
        data = file_data(path, **more) | {"path": path if not hasattr(path, "parts") else str(path)}
        for message in ([data], [{"root": [data]}], [[data]]):
            answer = visitor.send("upload", message)
            if answer.status_code == 200:  # names no file at all
                assert path in ("", None)
                assert not visitor.result()
            else:
                assert answer.status_code in (400, 403, 422), answer.text
    assert (tmp_path / "secret.png").exists()
    assert NAMES[0] in visitor.read(own)


def test_the_page_fetches_nothing_for_a_visitor(visitor):
    for address in ("http://127.0.0.1:1/x", "HTTPS://example.org/x", "ftp://example.org/x"):
        for route in ("file", "proxy"):
            assert visitor.http.get(f"gradio_api/{route}={address}").status_code == 403
    assert visitor.http.get("gradio_api/file=/etc/passwd").status_code == 403


def test_a_large_upload_is_refused_before_it_is_read(visitor, site):
    port = visitor.http.base_url.port
    for length in (f"content-length: {LARGEST_UPLOAD * 2}", "content-length: 1" + "0" * 15,
                   "transfer-encoding: chunked"):  # fmt: skip
        head = f"POST /gradio_api/upload HTTP/1.1\r\nhost: x\r\ncontent-type: multipart/form-data\r\n{length}"
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(f"{head}\r\n\r\n".encode())  # and no byte of the file
            status = connection.recv(1000).split()[1]
        assert status == (b"411" if "chunked" in length else b"413")
    long = json.dumps({"data": ["x" * LARGEST_MESSAGE]})
    assert visitor.http.post("gradio_api/queue/join", content=long).status_code == 413
    just_too_large = {"files": ("a.png", b"x" * (LARGEST_UPLOAD + 1))}
    assert visitor.http.post("gradio_api/upload", files=just_too_large).status_code == 413
    assert site.kept() == []


def test_hand_made_events_do_no_harm(visitor):
    for index in (99, -1, "0", [0], None, {"a": 1}):
        assert visitor.send("select", [], event_data={"index": index, "value": None}).status_code == 200
        result = visitor.result()
        assert not result or "There is no such example" in result[2]
    assert visitor.send("select", [], event_data={"index": 0, "value": None}).status_code == 200
    assert NAMES[0] in visitor.result()[2]
    assert visitor.http.post("gradio_api/queue/join", content=b"{").status_code == 400


def test_what_is_in_a_file_is_text(visitor, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no value that the standard allows
        write_dicom(tmp_path / "a.dcm", phantom(), Modality="<B>&\"'")
        write_dicom(tmp_path / "b.dcm", phantom(), BodyPartExamined="<I>HAND</I>")
    name = "<img src=x onerror=alert(1)>.dcm"
    text = visitor.read(visitor.upload((tmp_path / "a.dcm").read_bytes(), name))
    assert "&lt;B&gt;&amp;" in text and "<B>" not in text and "<img" not in text
    text = visitor.read(visitor.upload((tmp_path / "b.dcm").read_bytes(), "../../evil.dcm"))
    assert "&lt;i&gt;hand&lt;/i&gt;" in text and "<i>" not in text
    buffer = io.BytesIO()
    photograph().save(buffer, "png")
    assert "color picture" in visitor.read(visitor.upload(buffer.getvalue(), "a'\"><script>.png"))


def test_a_queue_has_an_end(visit):
    visitors = [visit() for _ in range(4)]
    data = [visitor.upload(png()) for visitor in visitors]
    statuses = [
        visitor.send("upload", [file_data(path)]).status_code
        for visitor, path in list(zip(visitors, data, strict=True)) * (LONGEST_QUEUE // 2)
    ]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= LONGEST_QUEUE

"""Sections of free-text reports: headings as people write them, and texts that have none."""

import pytest
from mini_mimic import REPORT

from dataset_scripts.build.report_text import ReportText, cut_sections


@pytest.mark.parametrize(
    "text, findings, impression, indication",
    [
        pytest.param(
            REPORT,
            "There is a small left pleural effusion. No pneumothorax.",
            "Small left pleural effusion.",
            "___F with cough // eval for infection",
            id="as PhysioNet has it",
        ),
        pytest.param(
            "Clinical History: Fall.\nFindings :\tClear lungs.\nCONCLUSION:\n Normal.",
            "Clear lungs.", "Normal.", "Fall.", id="odd case and spacing",
        ),
        pytest.param(
            "IMPRESSION: Mass.\n\nRECOMMENDATION(S):  CT.\n\nNOTIFICATION:  By phone.",
            "", "Mass.", "", id="what follows another heading is no impression",
        ),
        pytest.param(
            "FINDINGS:  In comparison to the prior: stable. Note the following:\n 2:1 block.\n",
            "In comparison to the prior: stable. Note the following: 2:1 block.", "", "",
            id="a colon in a sentence is no heading",
        ),
        pytest.param(
            " WET READ: 9:00 PM\n  Large effusion.\n\n FINAL REPORT\n FINDINGS:  Small effusion.",
            "Small effusion.", "", "", id="a preliminary reading does not count",
        ),
        pytest.param(
            "HISTORY:  Cough.\n\nPORTABLE CHEST RADIOGRAPH:  The heart is large.\n\nNo effusion.",
            "The heart is large. No effusion.", "", "Cough.", id="a heading that names the view",
        ),
        pytest.param(
            "FINAL REPORT\n CHEST\n\n Portable film.\n\n The lungs\n are clear.\n",
            "The lungs are clear.", "", "", id="no headings: the last paragraph",
        ),
        pytest.param("INDICATION:  Cough.\n\nCOMPARISON:  None.", "", "", "Cough.", id="headings alone"),
        pytest.param("FINDINGS: A.\nADDENDUM: B.\nFINDINGS: C.", "A. C.", "", "", id="sections of one name"),
        pytest.param("Findings/Impression: Clear.", "Clear.", "", "", id="two sections in one"),
        pytest.param(
            "FINDINGS:\n\n LUNGS:  Right opacity.\n\n HEART:  Large.\n\n COMPARISON:  None.\n\n"
            " IMPRESSION: A.\n",
            "LUNGS: Right opacity. HEART: Large.", "A.", "", id="headings within findings",
        ),
        pytest.param(
            "FINDINGS:\n\n PA AND LATERAL VIEWS OF THE CHEST:  Right effusion.\n\n IMPRESSION: A.",
            "Right effusion.", "A.", "", id="a view within findings",
        ),
        pytest.param(
            "CHEST, TWO VIEWS:  Right effusion.\n\n IMPRESSION:  A.", "Right effusion.", "A.", "",
            id="a view in place of findings",
        ),
        pytest.param("PORTABLE CHEST: 10:30 AM\n\nIMPRESSION: A.", "", "A.", "", id="a view's time"),
        pytest.param(
            "REASON FOR CHEST X-RAY: Line. Rule out mass.\n\nIMPRESSION: A.", "", "A.", "",
            id="a reason that names the chest",
        ),
        pytest.param(
            "CHEST TECHNIQUE: Two views.\n\nCOMPARISON CHEST RADIOGRAPH: ___. Prior mass.\n\nIMPRESSION: A.",
            "", "A.", "", id="a prior picture",
        ),
        pytest.param(
            "FINDINGS: Clear.\n\nCLINICAL DATA: cough.\n\nPATIENT HISTORY: HIV.\n\nDATE OF EXAM: today.\n\n"
            "PORTABLE ABDOMEN: No free air.\n\nLATERAL CHEST: B.\n\nIMPRESSION: Normal.\n\n"
            "NOTE: Dr. Smith was told.\n\nLUNGS: none.",
            "Clear.", "Normal.", "", id="headings that are no part of findings",
        ),
        pytest.param("IMPRESSION/FINDINGS: Clear.", "Clear.", "", "", id="the other way around"),
        pytest.param("FINDINGS & IMPRESSION: Clear.", "Clear.", "", "", id="an ampersand"),
        pytest.param("FINDINGS AND IMPRESSIONS: Clear.", "Clear.", "", "", id="several impressions"),
        pytest.param("IMPRESSION AND CONCLUSION: Clear.", "", "Clear.", "", id="two words for one"),
        pytest.param(
            "FINDINGS: Heart normal in\n comparison: no change. Left effusion.",
            "Heart normal in comparison: no change. Left effusion.", "", "", id="a wrapped line",
        ),
        pytest.param("findings: Clear.\nimpression: Normal.", "Clear.", "Normal.", "", id="lower case"),
        pytest.param(
            "IMPRESSION: Effusion.\n\n  FINAL ADDENDUM\n Correction: none.", "", "Effusion.", "",
            id="an addendum's heading without a colon",
        ),
        pytest.param(
            "FINDINGS\n\n Right effusion.\n\n IMPRESSION\n\n Effusion.", "Right effusion.", "Effusion.", "",
            id="headings without colons",
        ),
        pytest.param(
            "FINDINGS: The tip of the\n PICC: in SVC.\n ET TUBE: 4 cm above carina.\n UPPER ABDOMEN: Free "
            "air.\n OTHER: Old fractures.\n NOTE: left is right.\n CHEST TUBES: None.\n Stable.\n"
            "IMPRESSION: A.",
            "The tip of the PICC: in SVC. ET TUBE: 4 cm above carina. UPPER ABDOMEN: Free air. OTHER: Old "
            "fractures. NOTE: left is right. CHEST TUBES: None. Stable.", "A.", "", id="any part of findings",
        ),
        *(
            pytest.param(f"FINDINGS: Clear.\n {heading}: Normal.", "Clear.", "Normal.", "", id=heading)
            for heading in (
                "IMPRESSION AND RECOMMENDATION", "PRELIMINARY IMPRESSION", "SUMMARY", "IMPRESSON", "Summary"
            )
        ),
        *(
            pytest.param(f"FINDINGS: Clear.\n {heading}: Somebody.", "Clear.", "", "", id=heading)
            for heading in ("CRITICAL RESULTS", "ATTENDING", "RADIATION DOSE", "COMPARISON TO PRIOR FINDINGS")
        ),
        pytest.param(
            "INDICATION: Cough. COMPARISON: None. FINDINGS: Clear. IMPRESSION: Normal. NOTE: by phone.",
            "Clear.", "Normal. NOTE: by phone.", "Cough.", id="headings on one line",
        ),
        pytest.param("", "", "", "", id="empty"),
    ],
)  # fmt: skip
def test_sections(text, findings, impression, indication):
    assert cut_sections(text) == ReportText(findings, impression, indication)


@pytest.mark.parametrize(
    "text, left_out",
    [
        ("FINDINGS: A.\nCOMPARISON: B.\nIMPRESSION: C.", ()),
        ("IMPRESSION: C.\nNOTE: left is right.\nDICTATED BY: D.\nOTHER:", ("NOTE", "DICTATED BY")),
        ("AP CHEST: Effusion.\nFINDINGS: A.", ("AP CHEST",)),
        ("AP CHEST: 9:00 PM\nFINDINGS: A.", ()),
        ("AP CHEST: Effusion.\nIMPRESSION: A.", ()),
        ("CHEST, AS REQUESTED: Effusion.", ()),
        ("CHEST, AS REQUESTED: Effusion.\nIMPRESSION: A.", ("CHEST, AS REQUESTED",)),
    ],
)
def test_what_is_in_no_section_is_named(text, left_out):
    assert cut_sections(text).left_out == left_out

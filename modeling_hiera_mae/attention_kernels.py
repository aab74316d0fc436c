"""The Triton kernels of packed_attention, which launches them and says what they compute.

Triton only, and without it no kernel: PyTorch's builds for CPUs lack it. Pointers are to rows of channels,
some elements apart; row i of window w is row (w × rows of a window + i).
"""

from typing import Any

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

HAS_TRITON = triton is not None

attend_forward: Any = None

attend_backward: Any = None

if HAS_TRITON:

    @triton.jit
    def attend_forward(
        query, packed, out, log_sums, factor, queries, keys, heads, query_row, packed_row, first_key,
        WIDTH: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, CHANNELS: tl.constexpr,
    ):  # fmt: skip
        """`factor`: scale of the scores, times log2(e)."""
        pair = tl.program_id(0)  # of window and head
        window, head = (pair // heads).to(tl.int64), pair % heads
        row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
        channel = tl.arange(0, CHANNELS)
        is_row = (row < queries)[:, None] & (channel < WIDTH)[None, :]
        of_row = (window * queries + row)[:, None]
        q = tl.load(query + of_row * query_row + head * WIDTH + channel, mask=is_row, other=0.0)
        of_head = packed + window * keys * packed_row + first_key + head * WIDTH + channel
        most = tl.full((ROWS,), float("-inf"), tl.float32)
        total = tl.zeros((ROWS,), tl.float32)
        result = tl.zeros((ROWS, CHANNELS), tl.float32)
        for start in range(0, keys, TILE):
            column = start + tl.arange(0, TILE)
            is_key = (column < keys)[:, None] & (channel < WIDTH)[None, :]
            k = tl.load(of_head + column[:, None] * packed_row, mask=is_key, other=0.0)
            v = tl.load(of_head + column[:, None] * packed_row + heads * WIDTH, mask=is_key, other=0.0)
            score = tl.dot(q, tl.trans(k), input_precision="ieee")
            score = tl.where((column < keys)[None, :], score, float("-inf"))
            larger = tl.maximum(most, tl.max(score, 1))
            weight = tl.exp2(score * factor - (larger * factor)[:, None])
            before = tl.exp2((most - larger) * factor)
            total = total * before + tl.sum(weight, 1)
            result = tl.dot(weight.to(v.dtype), v, result * before[:, None], input_precision="ieee")
            most = larger
        place = out + of_row * (heads * WIDTH) + head * WIDTH + channel
        tl.store(place, (result / total[:, None]).to(out.dtype.element_ty), mask=is_row)
        place = log_sums + pair.to(tl.int64) * queries + row
        tl.store(place, most * factor + tl.log2(total), mask=row < queries)

    @triton.jit
    def attend_backward(
        query, packed, out, log_sums, gradient, by_query, by_packed, factor, scale, queries, keys, heads,
        query_row, packed_row, first_key, by_query_row, by_packed_row,
        WIDTH: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr, CHANNELS: tl.constexpr,
    ):  # fmt: skip
        """All keys of a window are one tile; queries past its end are zeros, and so is what they add."""
        pair = tl.program_id(0)  # of window and head
        window, head = (pair // heads).to(tl.int64), pair % heads
        column = tl.arange(0, TILE)
        channel = tl.arange(0, CHANNELS)
        is_key = (column < keys)[:, None] & (channel < WIDTH)[None, :]
        key = (window * keys + column)[:, None]
        of_key = packed + key * packed_row + first_key + head * WIDTH + channel
        k = tl.load(of_key, mask=is_key, other=0.0)
        v = tl.load(of_key + heads * WIDTH, mask=is_key, other=0.0)
        by_k = tl.zeros((TILE, CHANNELS), tl.float32)
        by_v = tl.zeros((TILE, CHANNELS), tl.float32)
        for start in range(0, queries, ROWS):
            row = start + tl.arange(0, ROWS)
            is_row = (row < queries)[:, None] & (channel < WIDTH)[None, :]
            of_row = (window * queries + row)[:, None]
            place = of_row * (heads * WIDTH) + head * WIDTH + channel
            q = tl.load(query + of_row * query_row + head * WIDTH + channel, mask=is_row, other=0.0)
            g = tl.load(gradient + place, mask=is_row, other=0.0)
            o = tl.load(out + place, mask=is_row, other=0.0)
            log_sum = tl.load(log_sums + pair.to(tl.int64) * queries + row, mask=row < queries, other=0.0)
            mean = tl.sum(g.to(tl.float32) * o.to(tl.float32), 1)  # of the weights' gradients, by the weights
            # Transposed, (keys, queries): products by keys and values then read it from registers.
            score = tl.dot(k, tl.trans(q), input_precision="ieee")
            score = tl.where((column < keys)[:, None], score, float("-inf"))
            weight = tl.exp2(score * factor - log_sum[None, :])
            by_weight = tl.dot(v, tl.trans(g), input_precision="ieee")
            by_v = tl.dot(weight.to(g.dtype), g, by_v, input_precision="ieee")
            by_score = (weight * (by_weight - mean[None, :])).to(q.dtype)
            by_k = tl.dot(by_score, q, by_k, input_precision="ieee")
            by_q = tl.dot(tl.trans(by_score), k, input_precision="ieee") * scale
            place = by_query + of_row * by_query_row + head * WIDTH + channel
            tl.store(place, by_q.to(by_query.dtype.element_ty), mask=is_row)
        place = by_packed + key * by_packed_row + first_key + head * WIDTH + channel
        tl.store(place, (by_k * scale).to(by_packed.dtype.element_ty), mask=is_key)
        tl.store(place + heads * WIDTH, by_v.to(by_packed.dtype.element_ty), mask=is_key)

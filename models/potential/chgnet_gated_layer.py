"""CHGNet's gated layer (DOI 10.1038/s42256-023-00716-3): its output and first gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class GatedLayer:
    """core(x)·gate(x) of concatenated features x, each part with its own slice of the weights.

    Core and gate share one matrix, 64 columns each, up to the second linear layer.
    """

    def __init__(self, layer: torch.nn.Module, parts: int) -> None:
        core, gate = list(layer.mlp_core.layers), list(layer.mlp_gate.layers)
        linears = [[m for m in branch if isinstance(m, torch.nn.Linear)] for branch in (core, gate)]
        joined = torch.cat([branch[0].weight for branch in linears])  # (128, parts * 64)
        self.parts = [w.t().contiguous() for w in joined.chunk(parts, dim=1)]
        self.bias = torch.cat([branch[0].bias for branch in linears])
        self.second = [(b[1].weight.t().contiguous(), b[1].bias) for b in linears if len(b) == 2]
        self.norms = [(n.weight, n.bias, n.eps) for n in (layer.bn1, layer.bn2)]

    def __call__(
        self,
        own: Tensor,
        of_own: Tensor,
        tables: tuple[Tensor, Tensor],
        rows: tuple[Tensor, Tensor],
    ) -> Tensor:
        """(r, 64) for r rows: `own` features times their weights plus one row of each table.

        own: (r, 64), or (r / 2, 64) where both halves share it.  tables: (…, 128).  rows: (r,).
        """
        return _GatedFunction.apply(self, own, of_own, *tables, *rows)


class _GatedFunction(torch.autograd.Function):  # type: ignore[misc]
    """The function of `GatedLayer`; its gradient by hand halves the passes over the rows."""

    @staticmethod
    def forward(
        ctx: Any,
        gated: GatedLayer,
        own: Tensor,
        of_own: Tensor,
        table: Tensor,
        other: Tensor,
        rows: Tensor,
        others: Tensor,
    ) -> Tensor:
        hidden = torch.addmm(gated.bias, own, of_own)
        total = table.index_select(0, rows)
        total.view(-1, *hidden.shape).add_(hidden)
        hidden = total.add_(other.index_select(0, others))
        opened = None
        if gated.second:
            opened = torch.sigmoid(hidden)
            hidden.mul_(opened)  # silu
            sides = [
                torch.addmm(bias, half, weight)
                for (weight, bias), half in zip(gated.second, hidden.chunk(2, dim=1), strict=True)
            ]
        else:
            sides = [half.contiguous() for half in hidden.chunk(2, dim=1)]
        (core, *of_core), (gate, *of_gate) = (
            torch.native_layer_norm(side, (side.shape[1],), weight, bias, eps)
            for side, (weight, bias, eps) in zip(sides, gated.norms, strict=True)
        )
        open_core, open_gate = torch.sigmoid(core), gate.sigmoid_()
        core.mul_(open_core)
        result = core * open_gate
        ctx.gated = gated
        ctx.shapes = own.shape, table.shape, other.shape
        ctx.save_for_backward(
            of_own,
            rows,
            others,
            hidden,
            opened,
            *sides,
            *of_core,
            *of_gate,
            core,
            open_core,
            open_gate,
            result,
        )
        return result

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Any:
        of_own, rows, others, hidden, opened, *saved = ctx.saved_tensors
        one, two, mean_1, scale_1, mean_2, scale_2, core, open_core, open_gate, result = saved
        gated: GatedLayer = ctx.gated
        # silu(x) = x·σ(x) has the slope σ + silu·(1 - σ) = lerp(σ, 1, silu)
        unit = slope.new_ones(())
        by_core = torch.lerp(open_core, unit, core).mul_(open_gate).mul_(slope)
        by_gate = torch.addcmul(result, result, open_gate, value=-1).mul_(slope)
        by_sides = [
            torch.ops.aten.native_layer_norm_backward(
                by, side, (side.shape[1],), mean, scale, weight, bias, [True, False, False]
            )[0]
            for by, side, mean, scale, (weight, bias, _) in zip(
                (by_core, by_gate),
                (one, two),
                (mean_1, mean_2),
                (scale_1, scale_2),
                gated.norms,
                strict=True,
            )
        ]
        by_hidden = torch.empty_like(hidden)
        halves = by_hidden.chunk(2, dim=1)
        if gated.second:
            for (weight, _), by, half in zip(gated.second, by_sides, halves, strict=True):
                torch.mm(by, weight.t(), out=half)
            by_hidden.mul_(torch.lerp(opened, unit, hidden))
        else:
            for by, half in zip(by_sides, halves, strict=True):
                half.copy_(by)
        own_shape, table_shape, other_shape = ctx.shapes
        by_own = by_hidden
        if len(hidden) != own_shape[0]:
            by_own = by_hidden[: own_shape[0]] + by_hidden[own_shape[0] :]
        return (
            None,
            by_own @ of_own.t(),
            None,
            hidden.new_zeros(table_shape).index_add_(0, rows, by_hidden),
            hidden.new_zeros(other_shape).index_add_(0, others, by_hidden),
            None,
            None,
        )

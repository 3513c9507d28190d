"""Compute attention with any number of heads, in the place of ``torch.nn.MultiheadAttention``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from surgeon import OperationError

if TYPE_CHECKING:
    from surgeon.surgery.context import Surgery


class MultiheadAttention(nn.Module):
    """Attend like ``torch.nn.MultiheadAttention``, with heads whose widths need not add up to that of the tokens.

    Shapes: queries ``(batch, tokens, width)``, or ``(tokens, batch, width)`` without ``batch_first``, → the same.
    """

    in_proj_bias = None
    """With ``_qkv_same_embed_dim``, what tells ``nn.TransformerEncoderLayer`` not to compute this module itself."""
    _qkv_same_embed_dim = False

    def __init__(self, width: int, heads: int, head_dim: int, *, bias: bool, dropout: float, batch_first: bool) -> None:
        super().__init__()
        self.embed_dim = width
        self.num_heads = heads
        self.head_dim = head_dim
        self.dropout = dropout
        self.batch_first = batch_first
        self.in_proj = nn.Linear(width, 3 * heads * head_dim, bias=bias)
        self.out_proj = nn.Linear(heads * head_dim, width, bias=bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; arguments and results are those of ``torch.nn.MultiheadAttention``."""
        alone = query.dim() == 2
        if alone:
            query, key, value = (tensor[None] for tensor in (query, key, value))
        elif not self.batch_first:
            query, key, value = (tensor.transpose(0, 1) for tensor in (query, key, value))
        weights = self.in_proj.weight.chunk(3)
        biases = self.in_proj.bias.chunk(3) if self.in_proj.bias is not None else (None, None, None)
        q, k, v = (
            F.linear(tensor, weight, bias).view(*tensor.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)
            for tensor, weight, bias in zip((query, key, value), weights, biases, strict=True)
        )
        mask = self._mask(q, k, key_padding_mask, attn_mask)
        if mask is None and is_causal:
            mask = torch.full((q.shape[2], k.shape[2]), float("-inf"), dtype=q.dtype, device=q.device).triu(1)
        dropout = self.dropout if self.training else 0.0
        attention: Tensor | None = None
        if need_weights:
            scores = q @ k.transpose(-1, -2) * self.head_dim**-0.5
            attention = (scores if mask is None else scores + mask).softmax(-1)
            heads = F.dropout(attention, dropout) @ v
        else:
            heads = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        output = self.out_proj(heads.transpose(1, 2).flatten(2))
        if attention is not None and average_attn_weights:
            attention = attention.mean(1)
        if alone:
            return output[0], attention[0] if attention is not None else None
        return output if self.batch_first else output.transpose(0, 1), attention

    def _mask(self, q: Tensor, k: Tensor, padding: Tensor | None, attention: Tensor | None) -> Tensor | None:
        """Add the masks, of which boolean ones are true where nothing may attend, to one that is added to scores."""
        mask = None
        if attention is not None:
            mask = _additive(attention, q.dtype)
            if mask.dim() == 3:
                mask = mask.view(len(q), -1, *mask.shape[1:])[:, : self.num_heads]
        if padding is not None:
            more = _additive(padding, q.dtype).view(len(k), 1, 1, -1)
            mask = more if mask is None else mask + more
        return mask


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, float("-inf"))


def replace_multihead(surgery: Surgery, sites: Sequence[str]) -> None:
    """Replace each ``torch.nn.MultiheadAttention`` at and below sites by a module with the same tensors.

    Raises:
        OperationError: One has keys or values of other widths, or learned extra keys.
    """
    replaced = 0
    for name, module in list(surgery.model.named_modules()):
        inside = any(f"{name}.".startswith(f"{site}." if site else "") for site in sites)
        if type(module) is not nn.MultiheadAttention or not inside:
            continue
        if not module._qkv_same_embed_dim or module.bias_k is not None or module.add_zero_attn:
            raise OperationError(
                f"{name} has keys and values of other widths than its queries, or extra ones, and cannot lose heads",
                hint="leave it out with at:",
            )
        new = surgery.new(
            MultiheadAttention,
            module.embed_dim,
            module.num_heads,
            module.head_dim,
            bias=module.in_proj_bias is not None,
            dropout=module.dropout,
            batch_first=module.batch_first,
            like=module,
        )
        assert isinstance(new, MultiheadAttention)
        new.in_proj.weight, new.out_proj.weight = module.in_proj_weight, module.out_proj.weight
        if module.in_proj_bias is not None:
            new.in_proj.bias, new.out_proj.bias = module.in_proj_bias, module.out_proj.bias
        surgery.replace(name, new)
        replaced += 1
    if replaced:
        surgery.note(
            f"{replaced} torch.nn.MultiheadAttention, which cannot have fewer heads of the same width, became "
            "surgeon_prune's, with the same tensors: loading needs this plugin"
        )

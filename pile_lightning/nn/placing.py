"""Where the tokens of a decoder's rows stand, and what each may attend to."""

import torch
from torch import Tensor

from pile_lightning.nn import masks
from pile_lightning.nn.cache import KVCache
from pile_lightning.nn.causal_blocks import is_fastest_compiled
from pile_lightning.nn.flex_documents import block_mask, has_flex
from pile_lightning.nn.masks import Mask

__all__ = ["place"]


def place(
    input_ids: Tensor,
    *,
    position_ids: Tensor | None,
    document_ids: Tensor | None,
    mask: Tensor | None,
    cache: KVCache | None,
    uniform: bool,
    flex: bool = False,
) -> tuple[Tensor, Mask]:
    """Complete what a decoder was told of its rows, by the arguments of ``Decoder.hidden``.

    Args:
        input_ids: Token ids (batch, seq).
        position_ids: Distances from the start of the document, if told; else they are counted.
        document_ids: The document of each position, if a row holds several.
        mask: What may attend to what, if it is not causal within each document.
        cache: What was read before.
        uniform: Whether rows of one document are to look as those of several do, where that costs
            nothing: compiled, they are then one graph, where they would be two.
        flex: Whether several documents are to be told as blocks too, for ``flex_documents``.

    Returns:
        Positions (batch or 1, seq), and what attention takes.

    Raises:
        ValueError: If ``document_ids`` come with a mask or a cache, which leave them no say.

    Example:
        >>> told = dict(position_ids=None, document_ids=None, mask=None, cache=None)
        >>> place(torch.zeros(1, 3, dtype=torch.long), **told, uniform=True)
        (tensor([[0, 1, 2]]), Documents(first=tensor([[0, 0, 0]]), blocks=None))
    """
    if document_ids is not None and (mask is not None or cache is not None):
        raise ValueError(
            "document_ids would be ignored beside a mask or a cache; put "
            "masks.document(document_ids) into the mask, or read one document a row"
        )
    (batch, seq), device = input_ids.shape, input_ids.device
    if cache is not None:
        if position_ids is None:
            position_ids = cache.positions(seq, device)
        return position_ids, cache.mask(seq, device) if mask is None else mask
    documents = None if document_ids is None else masks.Documents.of(document_ids)
    if position_ids is None:
        one = torch.arange(seq, device=device)[None]
        position_ids = one if documents is None else documents.positions()
    if mask is not None:
        return position_ids, mask
    if documents is not None and uniform and flex and has_flex(device):
        return position_ids, documents._replace(blocks=block_mask(documents.first))
    if not uniform or not is_fastest_compiled(device, seq):
        return position_ids, masks.CAUSAL if documents is None else documents.allowed()
    if documents is None:
        documents = masks.Documents(torch.zeros_like(input_ids))
    return position_ids.expand(batch, seq).contiguous(), documents

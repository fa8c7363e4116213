"""Made-up sources, read by lanes."""

from collections import Counter
from dataclasses import dataclass

from pile_lightning.data import ByteTokenizer, Document, Skipped, Source
from pile_lightning.data.deal import Deal
from pile_lightning.data.lane_rows import SplitLane
from pile_lightning.data.lanes import LaneSource
from pile_lightning.data.mixture import Mixture, MixtureStage
from pile_lightning.data.share import Share
from pile_lightning.data.short_rows import ShortStage
from pile_lightning.data.sources import Shard
from pile_lightning.data.split import content_hash, is_held_out
from pile_lightning.data.streaming import StreamBatches

BYTES = ByteTokenizer()
HELD_OUT = 0.2


@dataclass(frozen=True, kw_only=True)
class Numbered(Source):
    """Shards of documents of unlike length, some of which are none."""

    sizes: tuple[int, ...]
    """Records of each shard."""

    def documents(self):
        for shard in self.shards():
            yield from self.read(shard)

    def fingerprint(self):
        return repr(self.sizes)

    def shards(self):
        return [
            Shard(name=str(number), num_bytes=10 * size, identity="")
            for number, size in enumerate(self.sizes)
        ]

    def read(self, shard, start=0):
        for record in range(start, self.sizes[int(shard.name)]):
            name = f"{self.name}/{shard.name}:{record}"
            if record % 7 == 3:
                yield Skipped("broken", name)
            else:
                yield Document(f"{name} " + "x" * (record * 5 % 23), name)


def texts(*sources):
    """What is trained on in an epoch."""
    found = (r.text for s in sources for r in s.documents() if isinstance(r, Document))
    return Counter(t for t in found if not is_held_out(content_hash(t.encode()), HELD_OUT))


def stream(
    *sources,
    num_lanes,
    window=64,
    shares=None,
    once=False,
    seed=0,
    shuffle=True,
    kind=SplitLane,
    stage=None,
):
    lanes = [
        LaneSource(
            source=source,
            deal=Deal(shards=source.shards(), num_lanes=num_lanes, seed=seed),
            start_id=BYTES.start_id,
            held_out_below=HELD_OUT,
            window_bytes=window,
            shuffle=shuffle,
            once=once,
        )
        for source in sources
    ]

    def open_lane(domain, lane, cursor):
        return kind(lanes[domain], lane=lane, encode=BYTES.encode_batch, cursor=cursor)

    return StreamBatches(
        open_lane=open_lane,
        mixture=Mixture([MixtureStage(0, shares or (1.0,) * len(sources))]),
        num_lanes=num_lanes,
        seq_len=8,
        start_id=BYTES.start_id,
        token_num_bytes=BYTES.token_num_bytes,
        share=Share(num_rows=num_lanes),
        stage=stage or ShortStage(),
    )

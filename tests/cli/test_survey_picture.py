"""The picture of a survey is drawn of whatever there is."""

import numpy as np
from matplotlib.image import imread

from pile_lightning.cli.survey_picture import draw_survey
from pile_lightning.data.survey import DomainSurvey, Survey
from pile_lightning.data.token_stream import StreamCounts


def test_many_domains_and_odd_names_are_drawn(tmp_path):
    names = [*(f"domain {i}" for i in range(40)), "_x", "$y", ""]
    domains = {
        name: DomainSurvey(
            train=StreamCounts(documents=3, tokens=i, num_bytes=i),
            lengths=np.arange(1, i + 2),
            natural=1 / 43,
        )
        for i, name in enumerate(names)
    }
    nothing = Survey(domains={"a": DomainSurvey()}, skipped={}, num_dropped=0, read=None)
    whole = Survey(domains=domains, skipped={}, num_dropped=0, read=None)
    for found, shares in ((nothing, None), (whole, None), (whole, {"$y": 0.5, "domain 3": 0.5})):
        draw_survey(found, tmp_path / "a.png", seq_len=64, shares=shares)
        assert imread(tmp_path / "a.png").std() > 0

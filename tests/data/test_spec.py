"""The spec survives a checkpoint."""

import json

from glimpse.data.spec import ImageSpec


def test_spec_as_plain_data_and_back() -> None:
    spec = ImageSpec(2, ("cat", "dog"), 3, 20, 24, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert ImageSpec.from_dict(spec.as_dict()) == spec
    assert ImageSpec.from_dict(json.loads(json.dumps(spec.as_dict()))) == spec

"""A sealed JSON object shows any change; what was sealed comes back as it was."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hullward.tools.store import sealed, unsealed

VALUES = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text("abc", min_size=1), VALUES, min_size=1, max_size=4))
@settings(max_examples=100)
def test_what_was_sealed_comes_back_and_is_json_all_the_time(content):
    text = json.dumps(content)
    assert unsealed(sealed(text)) == text
    assert unsealed((sealed(text) + "\n").encode()) == text
    assert json.loads(sealed(text)).keys() == content.keys() | {"sum"}


@given(st.data())
@settings(max_examples=300)
def test_no_changed_bit_is_believed(data):
    content = sealed(json.dumps({"energy": -1.5, "name": "é", "rows": [1, 2]})).encode()
    place = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError):
        unsealed(bytes(changed))
    with pytest.raises(ValueError):  # nor any cut
        unsealed(content[:place])


def test_a_file_without_a_seal_is_read_only_where_that_is_allowed():
    assert unsealed('{"a":1}', required=False) == '{"a":1}'
    with pytest.raises(ValueError, match="no checksum"):
        unsealed('{"a":1}')

"""Events fold into a record, whole or cut off anywhere."""

import pytest

from bench.records.events import EventReader, EventWriter, NoEventError, aggregate_events

LOG = [
    {"event": "section", "name": "load"},
    {"event": "section_end", "name": "load", "seconds": 1.5, "peak_rss_bytes": 10},
    {"event": "section", "name": "train"},
    {"event": "step", "step": 20, "total": 40, "loss": 0.5, "samples_per_second": 9.0},
    {"event": "history", "step": 20, "train_seconds": 2.0, "split": "train", "metric": "loss", "value": 0.5},
    {"event": "section_end", "name": "train", "seconds": 2.0, "peak_rss_bytes": 30},
    {"event": "section", "name": "eval"},
    {"event": "section_end", "name": "eval", "seconds": 1.0, "peak_rss_bytes": 20},
    {"event": "section", "name": "train"},
    {"event": "section_end", "name": "train", "seconds": 3.0, "peak_rss_bytes": 25, "peak_allocated_bytes": 7},
    {"event": "measured", "steps": 40},
    {"event": "metrics", "split": "eval", "values": {"accuracy": 0.5}},
    {"event": "end", "status": "ok"},
]


def test_sections_add_up_and_peaks_are_maxima():
    result = aggregate_events(LOG)
    assert result.sections["train"] == {"seconds": 5.0, "peak_rss_bytes": 30, "peak_allocated_bytes": 7}
    assert result.row == {"steps": 40}
    assert result.history == [[20, 2.0, "train", "loss", 0.5]]
    assert (result.status, result.reason, result.section) == ("ok", "", "train")


@pytest.mark.parametrize("kept", range(len(LOG)))
def test_what_was_measured_before_a_cut_is_kept(kept):
    result = aggregate_events(LOG[:kept])
    assert result.status == ""
    named = [event["name"] for event in LOG[:kept] if event["event"] == "section"]
    assert result.section == (named[-1] if named else "")


def test_an_unknown_event_is_an_error():
    with pytest.raises(AttributeError):
        aggregate_events([{"event": "surprise"}])


@pytest.mark.parametrize(
    "line",
    [b"no event", b"[]", b"3", b"{}", b'{"event": "surprise"}', b'{"event": "section"}', b'{"event": "end", "x": 1}',
     b"\xff\xfe", b'{"event": "section_end", "name": "train", "seconds": "long"}', b'{"event": "__init__"}'],
)  # fmt: skip
def test_a_line_that_is_no_event_is_named(tmp_path, line):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "section", "name": "load"}\n' + line + b"\n")
    events = EventReader(path)()
    assert next(events)["name"] == "load"
    with pytest.raises(NoEventError, match=rf"{path}: line 2 is no event"):
        next(events)


def test_the_reader_waits_for_whole_lines(tmp_path):
    path = tmp_path / "events.jsonl"
    read = EventReader(path)
    assert list(read()) == []
    write = EventWriter(path)
    write("section", name="load")
    write.close()
    with path.open("a") as file:
        file.write('{"event": "sec')
    assert list(read()) == [{"event": "section", "name": "load"}]
    with path.open("a") as file:
        file.write('tion", "name": "train"}\n')
    assert list(read()) == [{"event": "section", "name": "train"}]
    assert list(read()) == []

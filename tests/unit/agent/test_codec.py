"""What a peer sends is either a message within its ranges, or a WireError; never anything else."""

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.codec import (
    MAX_LINE_BYTES,
    BadField,
    LineReader,
    LineTooLong,
    NotAMessage,
    NotJson,
    UnknownType,
    UnknownVersion,
    WireError,
    decode_from_guest,
    decode_from_host,
    encode,
    reply_to,
)
from agent.values import HOLDER_LETTERS, MAX_COUNT, MAX_HOLDER_CHARS, MAX_SIZE_BYTES, MOST_HOLDERS
from agent.wire import Ack, Error, Held, Hello, Offline, Online, OnlineZone, Ping, Report, Welcome, WhoHolds

BOOT = "0b1c2d3e-4f50-4162-9384-a5b6c7d8e9f0"
REPORT = Report(
    boot_id_prefix="0b1c2d3e",
    sequence=1,
    uptime_seconds=83.42,
    total_bytes=404 << 20,
    available_bytes=369 << 20,
    free_bytes=294 << 20,
)
RAW_REPORT = json.loads(encode(REPORT))

sizes = st.integers(0, MAX_SIZE_BYTES >> 10).map(lambda kib: kib << 10)
exact_sizes = st.integers(0, MAX_SIZE_BYTES)
counts = st.integers(0, MAX_COUNT)
texts = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=32)
hexes = st.text("0123456789abcdef", min_size=8, max_size=8)
zones = st.sampled_from(["movable", "kernel"])


def percents() -> st.SearchStrategy[float]:
    return st.integers(0, 10000).map(lambda n: n / 100)


@st.composite
def reports(draw: st.DrawFn) -> Report:
    total = draw(sizes.filter(bool))
    online = draw(sizes)
    swap = draw(sizes)
    used = draw(st.integers(0, swap >> 10)) << 10

    def below(limit: int) -> int:
        return draw(st.integers(0, limit >> 10)) << 10

    psi = draw(st.booleans())
    return Report(
        boot_id_prefix=draw(hexes),
        sequence=draw(counts),
        uptime_seconds=draw(st.integers(0, 10**9)) / 4,
        total_bytes=total,
        available_bytes=below(total),
        free_bytes=below(total),
        reclaimable_bytes=below(total),
        swap_total_bytes=swap,
        swap_used_bytes=used,
        swap_cached_bytes=below(swap),
        swap_disk_used_bytes=below(used),
        swap_disk_free_bytes=below(swap),
        swap_in_pages=draw(counts),
        committed_bytes=draw(sizes),
        psi_some_avg10=draw(percents()) if psi else None,
        psi_full_avg10=draw(percents()) if psi else None,
        psi_some_total_us=draw(counts) if psi else None,
        psi_full_total_us=draw(counts) if psi else None,
        refault_pages=draw(counts),
        major_faults=draw(counts),
        online_bytes=online,
        offline_bytes=draw(sizes),
        movable_bytes=below(online),
        ballooned_bytes=draw(sizes),
        floor_bytes=below(total),
        reason=draw(st.sampled_from(["heartbeat", "moved", "pressure", "hotplug", "hello"])),
    )


hellos = st.builds(
    Hello,
    boot_id=st.uuids().map(str),
    agent_version=texts,
    kernel_release=texts,
    block_bytes=exact_sizes,
    psi=st.booleans(),
    online_policy=texts,
    hotplug=st.sampled_from(["kernel", "agent", "none"]),
    welcomed=st.booleans(),
    holders=st.sampled_from(["on", "off", "unknown"]),
)
holder_names = st.text(HOLDER_LETTERS, min_size=1, max_size=MAX_HOLDER_CHARS).filter(
    lambda name: name.strip() == name
)
held = st.builds(
    Held,
    request_id=counts,
    by=st.sampled_from(["services", "processes"]),
    holders=st.lists(
        st.tuples(holder_names, sizes), max_size=MOST_HOLDERS, unique_by=lambda pair: pair[0]
    ).map(tuple),
)
errors = st.builds(
    Error,
    code=st.text("abcz-", min_size=1, max_size=32),
    message=texts,
    supported_versions=st.lists(st.integers(0, 99), max_size=16).map(tuple),
)
from_guest = st.one_of(
    reports(),
    hellos,
    st.builds(Ack, request_id=counts, ok=st.booleans(), detail=texts, changed_bytes=exact_sizes),
    held,
    errors,
)
from_host = st.one_of(
    st.builds(
        Welcome,
        controller_version=texts,
        calm_seconds=st.integers(2, 50).map(lambda n: n / 10),
        heartbeat_seconds=st.integers(10, 600).map(lambda n: n / 10),
        alert_seconds=st.integers(5, 100).map(lambda n: n / 100),
        maximum_bytes=exact_sizes,
    ),
    st.builds(OnlineZone, request_id=counts, zone=zones),
    st.builds(Offline, request_id=counts, start_bytes=exact_sizes, size_bytes=exact_sizes),
    st.builds(Online, request_id=counts, start_bytes=exact_sizes, size_bytes=exact_sizes, zone=zones),
    st.builds(Ping, request_id=counts),
    st.builds(WhoHolds, request_id=counts),
    errors,
)


@given(from_guest)
def test_what_a_guest_says_arrives_unchanged(message):
    assert decode_from_guest(encode(message)) == message


@given(from_host)
def test_what_the_host_says_arrives_unchanged(message):
    assert decode_from_host(encode(message)) == message


@given(held)
def test_who_holds_memory_is_told_in_half_a_kilobyte(message):
    assert len(encode(message)) <= 512


@pytest.mark.parametrize(
    "top",
    [
        [["a", 1]] * 2,
        [[f"p{number}", 1] for number in range(MOST_HOLDERS + 1)],
        [["a" * (MAX_HOLDER_CHARS + 1), 1]],
        [["", 1]],
        [[" a", 1]],
        [["a\x1b[2J", 1]],
        [["a\u202eb", 1]],
        [["<b>", 1]],
        [["\u00e9", 1]],
        [["a", -1]],
        [["a", 1.0]],
        [["a", True]],
        [["a", 1 << 41]],
        [["a", "1"]],
        [["a"]],
        [["a", 1, 2]],
        [[1, 1]],
        [{"a": 1}],
        {"a": 1},
        "a",
        None,
        1,
    ],
)
def test_no_holders_are_read_but_few_short_plain_names_with_sizes(top):
    line = json.dumps({"v": 1, "t": "held", "id": 1, "by": "services", "top": top}).encode()
    with pytest.raises(BadField):
        decode_from_guest(line)


@given(reports())
def test_a_report_is_short(report):
    assert len(encode(report)) <= 560  # every figure at its limit


def test_a_heartbeat_of_a_large_busy_guest_stays_below_100_bytes_a_second():
    busy = Report(
        *("0b1c2d3e", 12345678, 12345678.12),
        *(1 << 40, 1 << 39, 1 << 38, 1 << 37, 1 << 36, 1 << 35, 1 << 34, 1 << 34, 1 << 33),
        *(10**10, 1 << 40, 12.34, 12.34, 10**12, 10**12, 10**10, 10**9),
        *(1 << 40, 1 << 39, 1 << 38, 1 << 38, 1 << 32),
    )
    size = len(encode(busy))
    print(f"a report: {len(encode(REPORT))} bytes at least, {size} bytes from a busy guest of 1 TiB")
    assert decode_from_guest(encode(busy)) == busy
    assert size <= 420
    assert size / 5 <= 100


@given(st.binary(max_size=MAX_LINE_BYTES))
@example(b"\xff\xfe")
@example(b"[" * MAX_LINE_BYTES)
@example(b'{"a":' * 800)
@example(b"9" * MAX_LINE_BYTES)
@example(b"1e999")
@example(b"{}")
@example(b"null")
def test_garbage_is_an_error_and_nothing_else(line):
    for decode in (decode_from_guest, decode_from_host):
        with pytest.raises(WireError):
            decode(line)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(key=st.sampled_from([*RAW_REPORT, "ps", "rc", "w", "of"]), value=json_values)
@example(key="ma", value=1 << 80)
@example(key="up", value=10**400)
@example(key="mt", value=True)
@example(key="b", value="\ud800" * 8)
def test_any_value_in_any_field_gives_a_report_in_range_or_an_error(key, value):
    line = json.dumps({**RAW_REPORT, key: value}).encode()
    try:
        report = decode_from_guest(line)
    except WireError:
        return
    if isinstance(report, Report):
        assert 0 <= report.available_bytes <= report.total_bytes <= MAX_SIZE_BYTES
        encode(report)


@pytest.mark.parametrize("word", ["because", "", "Heartbeat", "\u202e", "x" * 32])
def test_a_word_that_is_not_known_yet_costs_only_that_word(word):
    told = json.loads(encode(REPORT)) | {"w": word}
    report = decode_from_guest(json.dumps(told).encode())
    assert report == REPORT._replace(reason="other")
    assert decode_from_guest(encode(report)) == report
    hello = Hello("0b1c2d3e-4f50-4162-9384-a5b6c7d8e9f0", "1", "6.1", 0, True, "", "kernel")
    other = decode_from_guest(json.dumps(json.loads(encode(hello)) | {"hotplug": word}).encode())
    assert other == hello._replace(hotplug="other")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"ma": RAW_REPORT["mt"] + 1}, "available_bytes"),
        ({"mf": RAW_REPORT["mt"] + 1}, "free_bytes"),
        ({"fl": RAW_REPORT["mt"] + 1}, "floor_bytes"),
        ({"mt": 0, "ma": 0, "mf": 0}, "total_bytes"),
        ({"mt": -1}, "total_bytes"),
        ({"mt": 1 << 80}, "total_bytes"),
        ({"mt": 1.5}, "total_bytes"),
        ({"mt": "404"}, "total_bytes"),
        ({"mt": True}, "total_bytes"),
        ({"su": 1}, "swap_used_bytes"),
        ({"mv": 1}, "movable_bytes"),
        ({"n": -1}, "sequence"),
        ({"up": -0.5}, "uptime_seconds"),
        ({"ps": 100.5}, "psi_some_avg10"),
        ({"ps": 1.0}, "psi_some_avg10"),  # without the other three
        ({"b": "0B1C2D3E"}, "boot_id_prefix"),
        ({"w": 7}, "reason"),
        ({"w": "x" * 33}, "reason"),
        ({"v": True}, "v"),
        ({"v": "1"}, "v"),
    ],
)
def test_an_absurd_report_is_refused_and_the_field_named(change, field):
    with pytest.raises(BadField) as caught:
        decode_from_guest(json.dumps({**RAW_REPORT, **change}).encode())
    assert caught.value.field == field


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_what_is_not_json_to_others_is_not_json_here(constant):
    with pytest.raises(NotJson):
        decode_from_guest(b'{"v":1,"t":"report","up":' + constant.encode() + b"}")


def test_a_missing_field_is_refused():
    raw = {key: value for key, value in RAW_REPORT.items() if key != "ma"}
    with pytest.raises(BadField, match="missing"):
        decode_from_guest(json.dumps(raw).encode())


def test_unknown_fields_are_ignored():
    assert decode_from_guest(json.dumps({**RAW_REPORT, "new": [1, {}]}).encode()) == REPORT


def test_of_duplicate_keys_the_last_counts():
    assert decode_from_host(b'{"v":1,"t":"ping","id":1,"id":2}') == Ping(2)


def test_neither_side_can_send_what_the_other_may():
    with pytest.raises(UnknownType):
        decode_from_guest(encode(Offline(1, 0, 1 << 27)))
    with pytest.raises(UnknownType):
        decode_from_host(encode(REPORT))


def test_an_unknown_version_is_answered_with_the_versions_spoken_here():
    with pytest.raises(UnknownVersion) as caught:
        decode_from_host(b'{"v":7,"t":"welcome"}')
    assert caught.value.version == 7
    answer = reply_to(caught.value)
    assert answer.code == "unknown-version"
    assert decode_from_guest(encode(answer)).supported_versions == (1,)


def test_an_error_is_understood_whatever_its_version():
    line = b'{"v":7,"t":"error","code":"unknown-version","supported":[6,7],"since":"2031"}'
    assert decode_from_host(line) == Error("unknown-version", "", (6, 7))


def test_every_error_can_be_answered():
    for line in (b"\xff", b"[]", b"{}", b'{"v":1,"t":"\x07"}', b'{"v":9,"t":"x"}', b"x" * 5000):
        with pytest.raises(WireError) as caught:
            decode_from_host(line)
        encode(reply_to(caught.value))


def test_a_message_of_ours_that_would_be_refused_is_not_sent():
    with pytest.raises(BadField):
        encode(Ack(1, True, "x" * 201))
    with pytest.raises(BadField):
        encode(REPORT._replace(total_bytes=1 << 60))
    with pytest.raises(BadField):
        encode(Ack(1, True, "\x1b[2J"))


def test_intervals_of_a_welcome_are_clamped_to_sane_ranges():
    line = b'{"v":1,"t":"welcome","controller":"1","calm":0,"heartbeat":1e9,"alert":-3}'
    assert decode_from_host(line) == Welcome("1", 0.2, 60.0, 0.05)


def test_a_wrong_shape_is_told_from_wrong_syntax():
    with pytest.raises(NotAMessage):
        decode_from_guest(b"[1]")
    with pytest.raises(NotJson):
        decode_from_guest(b"{1}")


@given(st.lists(from_guest, max_size=5), st.data())
def test_lines_are_found_wherever_the_stream_is_cut(messages, data):
    stream = b"".join(encode(message) for message in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader, found = LineReader(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:end])
    assert [decode_from_guest(line) for line in found] == messages


@given(st.binary(max_size=300))
def test_after_garbage_and_a_newline_the_next_line_is_read(garbage):
    lines = LineReader().feed(garbage + b"\n" + encode(Ping(7)))
    assert decode_from_host(lines[-1]) == Ping(7)


def test_a_line_of_a_gibibyte_costs_one_error_and_no_memory():
    reader, chunk = LineReader(), b"x" * (1 << 20)
    found = [item for _ in range(1024) for item in reader.feed(chunk)]
    assert [type(item) for item in found] == [LineTooLong]
    assert len(reader._buffer) <= MAX_LINE_BYTES
    assert reader.feed(b"\n" + encode(Ping(1))) == [encode(Ping(1)).strip()]


def test_the_longest_line_allowed_is_read_and_one_byte_more_is_not():
    longest = b"x" * (MAX_LINE_BYTES - 1)
    assert LineReader().feed(longest + b"\n") == [longest]
    assert isinstance(LineReader().feed(longest + b"x\n")[0], LineTooLong)


def test_empty_lines_are_no_lines():
    assert LineReader().feed(b"\n\r\n  \n\n") == []


def test_what_was_written_last_never_stands_for_what_is_meant():
    """Fields are written again only where they changed: a message that fails in the middle spoils none."""
    plain = Report("0b1c2d3e", 1, 2.0, 300 << 20, 200 << 20, 100 << 20, swap_total_bytes=1 << 20)
    changed = plain._replace(sequence=2, total_bytes=301 << 20, swap_total_bytes=8192, swap_used_bytes=4096)
    lines = encode(plain), encode(changed)
    for _ in range(2):
        with pytest.raises(BadField):
            encode(changed._replace(sequence=7, major_faults=-1, kill_percent=9))
        assert (encode(plain), encode(changed)) == lines
        assert decode_from_guest(encode(plain)) == plain


class Interrupted(str):
    """A text beside which another message is written, as a thread would."""

    __slots__ = ()

    def isprintable(self) -> bool:
        encode(Ack(8, False, "the other"))
        return super().isprintable()


def test_a_message_has_nothing_of_another_that_is_written_meanwhile() -> None:
    first, second = Ack(7, True, Interrupted("this one")), Ack(8, True, "the other")
    assert decode_from_guest(encode(first)) == Ack(7, True, "this one")
    assert decode_from_guest(encode(second)) == second

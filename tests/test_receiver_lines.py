"""Lines as tables: every history of events gives these actions and this state, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from procs.pacing import SECOND
from procs.receiver.budget import ConnectBudget
from procs.receiver.lines import (
    Action,
    Close,
    Connect,
    Down,
    Gap,
    LinePolicy,
    LineState,
    Note,
    Ping,
    Pong,
    Send,
    Up,
    policy_of,
)
from procs.receiver.venue_lines import Phase, VenueLines
from trading.venues.protocol import RESUBSCRIBE, ConnectionPlan, Limits, Refused, Subscribed

S = SECOND
HOUR = 3600 * S
POLICY = LinePolicy(rotate_ns=HOUR, message_gap_ns=S // 5)


def lines_of(
    *, plans: Sequence[ConnectionPlan] | None = None, copies: int = 1, policy: LinePolicy = POLICY, connects: int = 100
) -> VenueLines:
    """A venue's lines; one plan of two symbols with one message where nothing else is said."""
    plans = plans or [ConnectionPlan("/x", (b"sub",), (0, 1))]
    return VenueLines(plans, copies, policy, ConnectBudget(connects, 300 * S), random.Random(7))


def bring_up(lines: VenueLines, number: int, now: int) -> list[Action]:
    """Open and confirm a line that is connecting."""
    return lines.opened(number, now) + lines.subscribed(number, Subscribed(1), now)


def state(lines: VenueLines, number: int = 0) -> LineState:
    """Where a line stands."""
    return lines.lines[number].state


def test_up_only_after_the_venue_confirmed() -> None:
    """Connect, open, send, wait: the symbols are told up at the confirmation and not before."""
    lines = lines_of()
    assert lines.start(0) == [Connect(0, "/x")]
    assert lines.opened(0, 10) == [Send(0, b"sub")] and state(lines) is LineState.SUBSCRIBING
    assert lines.tick(S) == []
    assert lines.subscribed(0, Subscribed(1), 2 * S) == [Up(0, (0, 1))] and state(lines) is LineState.UP


def test_an_address_that_says_it_all_needs_no_confirmation() -> None:
    """Streams in the URL are subscribed when the socket stands."""
    lines = lines_of(plans=[ConnectionPlan("/s?a/b", (), (0, 1))])
    lines.start(0)
    assert lines.opened(0, 1) == [Up(0, (0, 1))] and state(lines) is LineState.UP


def test_symbols_that_the_venue_names_come_up_one_by_one() -> None:
    """A partial confirmation tells the symbols named; the line is up with the last; strangers' symbols are nobody's."""
    lines = lines_of()
    lines.start(0)
    lines.opened(0, 1)
    assert lines.subscribed(0, Subscribed(0, (1, 9)), 2) == [Up(0, (1,))] and state(lines) is LineState.SUBSCRIBING
    assert lines.subscribed(0, Subscribed(0, (1,)), 3) == []
    assert lines.subscribed(0, Subscribed(0, (0,)), 4) == [Up(0, (0,))] and state(lines) is LineState.UP


def test_several_messages_need_several_confirmations() -> None:
    """One answer to two messages is not enough, and the same answer twice is one."""
    lines = lines_of(plans=[ConnectionPlan("/x", (b"a", b"b"), (0,))])
    lines.start(0)
    assert lines.opened(0, 0) == [Send(0, b"a")]
    assert lines.subscribed(0, Subscribed(1), 1) == []
    assert lines.tick(S // 10) == [] and lines.tick(S // 5) == [Send(0, b"b")]
    assert lines.subscribed(0, Subscribed(1), S) == []
    assert lines.subscribed(0, Subscribed(2), S) == [Up(0, (0,))]


@pytest.mark.parametrize(
    ("what", "seconds", "why"),
    [
        ("connecting", 10, "no connection within 10 s"),
        ("subscribing", 16, "no confirmation within 15 s"),
        ("up", 60, "silent for 60 s"),
    ],
)
def test_limits_of_time(what: str, seconds: int, why: str) -> None:
    """A line that hangs anywhere is closed, told down if it was told up, and tried again when the close is done."""
    lines = lines_of()
    lines.start(0)
    if what != "connecting":
        lines.opened(0, 0)
    if what == "up":
        lines.subscribed(0, Subscribed(1), 0)
    assert lines.tick(seconds * S - S) == []
    actions = lines.tick(seconds * S)
    assert [type(action) for action in actions] == ([Down, Close] if what == "up" else [Close])
    assert actions[-1].why == why and state(lines) is LineState.CLOSING  # type: ignore[union-attr]
    lines.closed(0, "gone", seconds * S + 1)
    assert state(lines) is LineState.BACKOFF and lines.lines[0].last_end == why


def test_a_close_that_nobody_answers_is_over_after_a_while() -> None:
    """The socket is aborted and the line goes on."""
    lines = lines_of()
    lines.start(0)
    lines.tick(10 * S)
    assert lines.tick(14 * S) == []
    assert lines.tick(15 * S)[0] == Close(0, "no connection within 10 s", abort=True)
    assert state(lines) is LineState.BACKOFF


def test_back_off_doubles_up_to_its_limit_and_is_forgotten_after_a_stable_while() -> None:
    """Waits lie within [half, whole] of min * 2**n; a line that was up for 10 s begins again at the bottom."""
    lines = lines_of(connects=10_000)
    lines.start(0)
    now, waits = 0, []
    for _ in range(12):
        lines.closed(0, "refused", now)
        line = lines.lines[0]
        waits.append(line.deadline_ns - now)
        now = line.deadline_ns
        assert lines.tick(now - 1) == [] and lines.tick(now) == [Connect(0, "/x")]
    for n, wait in enumerate(waits):
        whole = min(POLICY.backoff_min_ns << n, POLICY.backoff_max_ns)
        assert whole // 2 <= wait <= whole
    assert len(set(waits[8:])) > 1, "jitter"
    bring_up(lines, 0, now)
    assert lines.closed(0, "cut", now + 11 * S) == [Down(0, (0, 1), "cut")]
    assert lines.lines[0].deadline_ns - now - 11 * S <= POLICY.backoff_min_ns


def test_the_connect_budget_is_shared_and_holds() -> None:
    """Three lines, three connects in the window: the fourth attempt waits until the first is old."""
    plan = [ConnectionPlan(f"/{n}", (), (n,)) for n in range(3)]
    lines = lines_of(plans=plan, connects=3)
    assert len(lines.start(0)) == 3
    lines.closed(0, "refused", 1)
    assert lines.tick(200 * S) == [] or all(not isinstance(a, Connect) for a in lines.tick(200 * S))
    assert any(isinstance(action, Connect) for action in lines.tick(300 * S))


def test_retry_after_holds_all_lines_of_the_venue() -> None:
    """A 429 to one upgrade keeps every line from connecting until its time is over."""
    lines = lines_of(plans=[ConnectionPlan(f"/{n}", (), (n,)) for n in range(2)])
    lines.start(0)
    lines.closed(0, "HTTP 429", 1, retry_after_s=90.0)
    lines.closed(2, "cut", 2)
    assert not any(isinstance(action, Connect) for t in range(1, 90) for action in lines.tick(t * S))
    assert len([action for action in lines.tick(91 * S) if isinstance(action, Connect)]) == 2


def test_messages_keep_the_venues_rate_and_pings_go_first() -> None:
    """Five a second at most; a reply (pong) overtakes what waits."""
    lines = lines_of(policy=LinePolicy(ping_ns=20 * S))
    lines.start(0)
    bring_up(lines, 0, 0)
    sent = []
    lines.lines[0].seen_ns = 10**18  # not silent
    for message in (b"1", b"2", b"3"):
        sent += [(0, action) for action in lines.send(0, [message], 0)]
    sent += [(0, action) for action in lines.send(0, [b"pong"], 0, first=True)]
    for tenth in range(1, 210):
        sent += [(tenth, action) for action in lines.tick(tenth * S // 10)]
    assert [action for _, action in sent] == [Send(0, b"pong"), Send(0, b"1"), Send(0, b"2"), Send(0, b"3"), Ping(0)]
    times = [at for at, _ in sent]
    assert all(b - a >= 2 for a, b in zip(times, times[1:], strict=False))


def test_a_flood_of_messages_is_refused_not_queued_for_ever() -> None:
    """More than a queue's worth is a note."""
    lines = lines_of()
    lines.start(0)
    bring_up(lines, 0, 0)
    assert [type(action) for action in lines.send(0, [b"x"] * 1000, 0)] == [Note]


def test_rotation_overlaps() -> None:
    """Before its end a line is replaced: the new one is up first, the old one closes after the overlap, the number changes."""
    lines = lines_of()
    lines.start(0)
    bring_up(lines, 0, 0)
    strand = lines.strands[0]
    due = strand.rotate_ns
    lines.lines[0].seen_ns = 10**18
    assert lines.tick(due - 1) == [] and lines.tick(due) == [Connect(1, "/x")]
    assert bring_up(lines, 1, due + S) == [Send(1, b"sub"), Up(1, (0, 1))]
    assert strand.phase is Phase.RETIRING and state(lines, 0) is LineState.UP
    assert lines.tick(due + S + POLICY.overlap_ns - 1) == []
    assert lines.tick(due + S + POLICY.overlap_ns) == [Down(0, (0, 1), "replaced"), Close(0, "replaced")]
    assert lines.closed(0, "closed", due + 7 * S) == [] and lines.strands[0].phase is Phase.STEADY
    assert state(lines, 0) is LineState.IDLE and strand.line.number == 1 and strand.replaced == 1
    assert lines.tick(due + 20 * S) == []


def test_the_venues_notice_replaces_the_line_at_once() -> None:
    """`serverShutdown` is a reason to open another line, not to close this one; a second notice changes nothing."""
    lines = lines_of()
    lines.start(0)
    bring_up(lines, 0, 0)
    assert [type(action) for action in lines.closing(0, "serverShutdown", S)] == [Note, Connect]
    assert lines.closing(0, "serverShutdown", S) == [] and state(lines, 0) is LineState.UP


def test_a_line_that_ends_while_it_is_replaced_leaves_its_place() -> None:
    """The replacement, wherever it stands, is the strand's line; the old one is not opened again."""
    lines = lines_of()
    lines.start(0)
    bring_up(lines, 0, 0)
    lines.closing(0, "bye", S)
    assert lines.closed(0, "cut", 2 * S) == [Down(0, (0, 1), "cut")]
    assert lines.strands[0].line.number == 1 and state(lines, 0) is LineState.IDLE
    assert bring_up(lines, 1, 3 * S)[-1] == Up(1, (0, 1)) and lines.strands[0].phase is Phase.STEADY


def test_a_replacement_that_dies_in_the_overlap_gives_the_place_back() -> None:
    """The old line is still up: it serves on, and another replacement is tried."""
    lines = lines_of()
    lines.start(0)
    bring_up(lines, 0, 0)
    lines.closing(0, "bye", S)
    bring_up(lines, 1, 2 * S)
    lines.closed(1, "cut", 3 * S)
    strand = lines.strands[0]
    assert strand.line.number == 0 and strand.phase is Phase.REPLACING and state(lines, 1) is LineState.BACKOFF


def test_redundant_lines_take_turns() -> None:
    """A and B are told to go at once: B is replaced after A is done; a turn that gets nowhere is given up."""
    lines = lines_of(copies=2)
    lines.start(0)
    for number in (0, 2):
        bring_up(lines, number, 0)
    lines.closing(0, "bye", S)
    lines.closing(2, "bye", S)
    assert state(lines, 1) is LineState.CONNECTING and state(lines, 3) is LineState.IDLE
    for t in range(2, 70):  # A's replacement never comes up
        if state(lines, 1) in (LineState.CONNECTING, LineState.CLOSING):
            lines.closed(1, "refused", t * S)
        for number in (0, 2):
            lines.lines[number].seen_ns = t * S
        lines.tick(t * S)
    assert state(lines, 1) in (LineState.IDLE, LineState.CLOSING) and lines.strands[1].phase is Phase.REPLACING


def test_only_the_connection_of_the_book_is_the_books_loss() -> None:
    """Depth on one connection, prints on another: the loss of the first is a Gap, because the symbol still has a line; the loss
    of the second is a note, and neither it nor its absence from the start holds back a snapshot."""
    plans = [ConnectionPlan("/depth", (), (0, 1)), ConnectionPlan("/trades", (), (0, 1), book=False)]
    lines = lines_of(plans=plans)
    lines.start(0)
    lines.opened(2, 0)
    assert not lines.covered(0) and lines.up_lines(0) == []
    lines.opened(0, 0)
    assert lines.covered(0) and lines.covered(1) and lines.up_lines(0) == [0]
    down, note = lines.closed(2, "cut", S)
    assert down == Down(2, (0, 1), "cut") and isinstance(note, Note) and "books live on" in note.text
    assert lines.covered(0) and lines.covered(1)
    assert [action for action in lines.tick(2 * S) if isinstance(action, Connect)] == [Connect(2, "/trades")]
    lines.opened(2, 3 * S)
    assert lines.closed(0, "cut", 4 * S) == [Down(0, (0, 1), "cut"), Gap(0, (0, 1))]
    assert not lines.covered(0) and not lines.covered(1)
    both = lines_of(plans=plans, copies=2)
    both.start(0)
    for number in (0, 2, 4, 6):
        both.opened(number, 0)
    assert both.closed(0, "cut", S) == [Down(0, (0, 1), "cut")], "the other copy still brings it"


def test_pongs_count_among_the_messages() -> None:
    """A venue that pings while messages wait: never more than the rate within any second, the pong first and with its payload;
    of two pings that wait for their answer the last one is answered."""
    lines = lines_of(policy=policy_of(Limits(), backoff_min_ms=1, backoff_max_ms=9, silence_timeout_s=99.0, rotate_hours=2.0))
    lines.start(0)
    bring_up(lines, 0, 0)
    lines.send(0, [b"%d" % n for n in range(40)], 0)
    times: list[int] = [0]
    pongs = []
    for tick in range(1, 1000):
        now = tick * S // 100
        lines.lines[0].seen_ns = now
        done = lines.ping(0, b"%d" % now, now) if tick % 37 == 0 else []
        done += lines.ping(0, b"again", now) if tick % 74 == 0 and not done else []
        done += lines.tick(now)
        times += [now] * len(done)
        pongs += [action for action in done if isinstance(action, Pong)]
    assert len(pongs) >= 20 and all(b - a >= S // 5 for a, b in zip(times, times[1:], strict=False))
    assert all(sum(at <= other < at + S for other in times) <= 5 for at in times)
    assert lines.ping(2 - 1, b"x", 0) == [], "a line that is not open has nobody to answer"


def test_connections_that_share_a_rate_keep_it_together() -> None:
    """Ten connections that open at once, eight messages a second for all: no second has more, and all come up, because the time
    for a confirmation begins when everything is sent."""
    plans = [ConnectionPlan(f"/{n}", (b"heart", b"book", b"prints", b"best"), (n,)) for n in range(10)]
    limits = Limits(client_messages_per_s=8.0, messages_shared=True)
    policy = policy_of(limits, backoff_min_ms=1, backoff_max_ms=9, silence_timeout_s=99.0, rotate_hours=2.0)
    lines = lines_of(plans=plans, policy=replace(policy, subscribe_ns=S))
    lines.start(0)
    sent = [(0, action) for plan in range(10) for action in lines.opened(2 * plan, 0)]
    for tick in range(1, 800):
        now = tick * S // 100
        for done in lines.tick(now):
            assert isinstance(done, Send), done
            sent.append((now, done))
            if done.message == b"best":
                lines.subscribed(done.line, Subscribed(0, (done.line // 2,)), now)
    assert len(sent) == 40 and all(state(lines, 2 * n) is LineState.UP for n in range(10))
    assert max(sum(at <= other < at + S for other, _ in sent) for at, _ in sent) <= 8


def test_requests_are_counted_for_each_connection() -> None:
    """OKX's limit: what a connection subscribed at its beginning counts; when the hour's are used up nothing more is borne, and
    a new connection has its own."""
    plan = ConnectionPlan("/x", (b"sub",), (0, 1), requests=6)
    lines = lines_of(plans=[plan], policy=replace(POLICY, requests=10, rotate_ns=0))
    lines.start(0)
    bring_up(lines, 0, 0)
    line = lines.lines[0]
    assert line.bears(4, 0) and not line.bears(5, 0)
    for _ in range(2):
        lines.send(0, [b"leave", b"enter"], S)
    assert line.used_up(1, 2 * S) and not line.bears(2, 3599 * S) and line.bears(2, 3600 * S)
    lines.closing(0, "used up", 3 * S)
    bring_up(lines, 1, 4 * S)
    assert lines.lines[1].bears(4, 4 * S) and not lines.lines[1].bears(5, 4 * S)


def test_an_answer_to_a_resubscription_confirms_no_subscription() -> None:
    """Only ids that the plan's own messages carry count."""
    lines = lines_of(plans=[ConnectionPlan("/x", (b"a", b"b"), (0,))])
    lines.start(0)
    lines.opened(0, 0)
    lines.tick(S)
    assert lines.subscribed(0, Subscribed(1), S) == []
    assert lines.subscribed(0, Subscribed(RESUBSCRIBE), S) == [] and state(lines) is LineState.SUBSCRIBING


def test_a_refused_subscription_closes_the_line() -> None:
    """A refusal while nothing is confirmed: the line backs off and tries again; later ones are only noted."""
    lines = lines_of()
    lines.start(0)
    lines.opened(0, 0)
    assert [type(action) for action in lines.refused(0, Refused("bad symbol"), 1)] == [Note, Close]
    lines = lines_of()
    lines.start(0)
    bring_up(lines, 0, 0)
    assert [type(action) for action in lines.refused(0, Refused("too fast"), 1)] == [Note] and state(lines) is LineState.UP


def test_stop_closes_everything_and_nothing_comes_back() -> None:
    """After stop no line connects again."""
    lines = lines_of(copies=2)
    lines.start(0)
    bring_up(lines, 0, 0)
    assert {type(action) for action in lines.stop(S)} == {Down, Close}
    for number in (0, 2):
        lines.closed(number, "closed", 2 * S)
    assert all(line.state is LineState.IDLE for line in lines.lines.values())
    assert not any(isinstance(action, Connect) for action in lines.tick(HOUR))


def test_policy_takes_the_stricter_of_venue_and_profile() -> None:
    """Silence, life and rate come from both; a venue without a limit of life is rotated as the profile says."""
    made = policy_of(Limits(), backoff_min_ms=100, backoff_max_ms=50, silence_timeout_s=5.0, rotate_hours=24.0)
    assert made.silence_ns == 5 * S and made.rotate_ns < 24 * HOUR - 30 * 60 * S and made.backoff_max_ns == made.backoff_min_ns
    assert made.message_gap_ns > S // 5
    made = policy_of(Limits(lifetime_s=0), backoff_min_ms=1, backoff_max_ms=9, silence_timeout_s=99.0, rotate_hours=2.0)
    assert made.rotate_ns == 2 * HOUR and made.silence_ns == 60 * S and made.ping_ns == 0
    pinged = Limits(ping_interval_s=20.0)
    wanted = {"backoff_min_ms": 1, "backoff_max_ms": 9, "rotate_hours": 2.0}
    quick, slow = (policy_of(pinged, silence_timeout_s=s, **wanted) for s in (10.0, 60.0))  # type: ignore[arg-type]
    assert quick.ping_ns == 4 * S and quick.silence_ns == 10 * S and slow.ping_ns == 20 * S

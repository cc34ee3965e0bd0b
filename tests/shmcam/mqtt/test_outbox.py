"""What is sent to the broker, and in which order: the newest state, every event, nothing without a limit."""

from shmcam.mqtt.outbox import STRAYS_MAX, Outbox, Outgoing


def take_all(outbox):
    return [message.topic for message in iter(outbox.take_retained, None)]


def test_a_newer_state_takes_the_place_of_one_that_was_not_sent():
    outbox = Outbox(10)
    assert outbox.set("a", b"1")
    assert outbox.set("b", b"1")
    assert outbox.set("a", b"2")
    assert not outbox.set("b", b"1")
    assert outbox.take_retained() == Outgoing("a", b"2", 1, retain=True)
    assert take_all(outbox) == ["b"]


def test_a_new_connection_gets_everything_retained_again_but_no_old_answer():
    outbox = Outbox(10)
    outbox.set("a", b"1")
    outbox.set("b", b"1")
    outbox.add_reply(Outgoing("reply", b""))
    assert take_all(outbox) == ["a", "b"]
    outbox.renew()  # Home Assistant has started: the callers still wait for their answers
    assert take_all(outbox) == ["a", "b"]
    assert [reply.topic for reply in outbox.take_replies()] == ["reply"]
    outbox.add_reply(Outgoing("reply", b""))
    outbox.begin_connection()
    assert take_all(outbox) == ["a", "b"]
    assert outbox.take_replies() == []


def test_a_topic_is_removed_by_an_empty_retained_payload_also_one_of_an_earlier_run():
    outbox = Outbox(10)
    outbox.set("a", b"1")
    outbox.remove("a")
    outbox.remove("old")
    assert list(iter(outbox.take_retained, None)) == [Outgoing(name, b"", retain=True) for name in ("a", "old")]
    outbox.renew()
    assert take_all(outbox) == []


def test_events_leave_the_queue_only_when_the_broker_has_confirmed_them():
    outbox = Outbox(10)
    for name in "abc":
        outbox.add_event(name, b"")
    first, second = outbox.list_events(2)
    outbox.confirm(second)  # then the connection broke
    assert [event.topic for event in outbox.list_events(9)] == ["a", "c"]
    outbox.confirm(first)
    assert (len(outbox), outbox.published, outbox.lost) == (1, 2, 0)


def test_the_oldest_events_are_dropped_and_counted_beyond_the_limit_also_while_they_are_sent():
    outbox = Outbox(3)
    for name in "abcde":
        outbox.add_event(name, b"")
    assert outbox.lost == 2
    sending = outbox.list_events(2)
    assert [event.topic for event in sending] == ["c", "d"]
    outbox.add_event("f", b"")  # drops c, which is on its way
    for event in sending:
        outbox.confirm(event)
    assert [event.topic for event in outbox.list_events(9)] == ["e", "f"]
    assert (outbox.published, outbox.lost) == (1, 3)


def test_a_broker_that_sends_ever_new_old_topics_fills_nothing():
    outbox = Outbox(10)
    outbox.set("a", b"1")
    assert [outbox.remove(f"old/{number}") for number in range(STRAYS_MAX + 5)] == [True] * STRAYS_MAX + [False] * 5
    assert outbox.remove("a")
    assert len(take_all(outbox)) == STRAYS_MAX + 1


def test_images_are_taken_apart_and_what_the_broker_cannot_take_counts_as_lost():
    outbox = Outbox(10)
    outbox.set("image", b"jpeg", qos=0)
    outbox.set("state", b"1")
    outbox.remove("old")
    assert take_all(outbox) == ["state", "old"]
    assert outbox.take_retained(qos=0) == Outgoing("image", b"jpeg", 0, retain=True)
    outbox.add_event("a", b"")
    outbox.drop(outbox.list_events(1)[0])
    assert (len(outbox), outbox.published, outbox.lost) == (0, 0, 1)

"""Continuation points: how many there are, and whose make room."""

from plugin.publish.points import Points


def test_those_of_earlier_requests_make_room_the_oldest_first():
    points = Points(most=3)
    points.begin()
    first = [points.keep("node", number) for number in range(3)]
    points.begin()
    assert points.keep("node", 3) is not None
    assert [points.take("node", token or b"") for token in first] == [None, 1, 2]


def test_one_request_has_no_more_than_there_may_be():
    points = Points(most=3)
    points.begin()
    assert [points.keep("node", number) is None for number in range(5)] == [False, False, False, True, True]


def test_a_point_is_good_once_for_its_node_and_for_ten_minutes():
    now = [0.0]
    points = Points(lambda: now[0])
    token = points.keep("node", "rest") or b""
    assert points.take("another", token) is None
    assert points.take("node", token) == "rest"
    assert points.take("node", token) is None
    token = points.keep("node", "rest") or b""
    assert [points.find("node", token), points.find("node", token), points.find("another", token)] == [
        "rest", "rest", None,
    ]  # fmt: skip
    points.release(token)
    assert points.find("node", token) is None
    old = points.keep("node", "rest") or b""
    now[0] = 600.0
    assert points.take("node", old) is None


def test_what_remembers_much_makes_room_for_what_comes_later():
    """A thousand lists of 100,000 times each were gigabytes."""
    points = Points()
    points.begin()
    first = points.keep("node", "first", 600_000) or b""
    assert points.keep("node", "of the same request", 600_000) is None
    points.begin()
    second = points.keep("node", "second", 600_000) or b""
    assert [points.find("node", token) for token in (first, second)] == [None, "second"]
    assert points.keep("node", "too much", 1_000_001) is None

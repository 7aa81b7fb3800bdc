class AnswerQueue:
    """The answers that one connection owes, in the order of its requests; for compiled code."""

    count: int

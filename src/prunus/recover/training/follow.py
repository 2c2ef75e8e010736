"""What does a process do that trains with others and leads none of it?

It waits for a training, computes its part of every batch, and waits again until rank 0 says the end.
"""

from __future__ import annotations

from prunus.core.code.imports import one_line
from prunus.core.errors import PrunusError, RunError
from prunus.recover.training.loop import Here, run_training
from prunus.recover.training.ranks.meeting import Meeting, is_lost
from prunus.recover.training.ranks.parcel import receive, unpack
from prunus.recover.training.train import together

__all__ = ["follow_trainings"]


def follow_trainings(meeting: Meeting) -> bool:
    """Take part in every training that rank 0 calls; return whether it ended them, False where a process is gone.

    Raises:
        RunError: this process failed, and rank 0 isn't there to say so.
    """
    try:
        while meeting.await_call():
            training = unpack(receive(), meeting.known)
            run_training(training, Here(), together(training, meeting))
    except Exception as error:
        if meeting.ended:
            meeting.leave()
            return True
        if is_lost(error):
            return False
        line = str(error) if isinstance(error, PrunusError) else one_line(error)
        if not meeting.fail(line):
            raise RunError(f"rank {meeting.place.rank} on {meeting.place.host} failed: {line}") from error
        return False
    meeting.leave()
    return True

"""What ends a script: a mistake of the user's, or a signal; each with its exit status."""


class UserError(Exception):
    """A mistake of the user's: shown as one line, never as a traceback. Exit status 1."""

    exit_status = 1


class UsageError(UserError):
    """A mistake in the command line. Exit status 2."""

    exit_status = 2


class Stopped(BaseException):
    """A stop signal asked train.py to end; says what is saved. Exit status 128 + the signal's number."""

    def __init__(self, signal_number, message):
        super().__init__(message)
        self.exit_status = 128 + signal_number

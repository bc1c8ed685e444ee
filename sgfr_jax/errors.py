"""The error that names an argument."""


class ArgumentError(ValueError):
    """An argument that cannot be honoured: the message says which, and what would be right.

    Arguments stand in it as `name=value`, or by their names in backticks. A command line whose
    flags have these names can so speak of flags.
    """

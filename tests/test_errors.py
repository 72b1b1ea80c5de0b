import builtins
import inspect

import pytest

from pathopan import errors
from pathopan.errors import ConfigError, MissingMpp, PathopanError, SlideError, UnknownBundle, UnreadableSlide

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, PathopanError)]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_drawn_in_the_tree(kind):
    assert kind.__name__ in errors.__doc__


@pytest.mark.parametrize("kind", ALL)
def test_every_error_shows_its_message_as_written(kind):
    assert str(kind("what happened, and what to do")) == "what happened, and what to do"


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [(UnreadableSlide, OSError), (MissingMpp, ValueError), (UnknownBundle, KeyError), (ConfigError, ValueError)],
)
def test_errors_can_be_caught_as_the_builtin_a_caller_expects(kind, builtin):
    with pytest.raises(builtin):
        raise kind("x")


def test_trouble_with_one_slide_is_told_apart():
    assert issubclass(UnreadableSlide, SlideError)
    assert not issubclass(ConfigError, SlideError)


def test_no_name_hides_a_builtin():
    assert not {kind.__name__ for kind in ALL} & set(dir(builtins))

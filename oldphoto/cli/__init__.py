"""The command line: one module a command, each imported only when it is needed."""

from __future__ import annotations

import importlib
import importlib.util
import traceback

import click

from oldphoto import __version__
from oldphoto.cli.common import FAILED, INTERRUPTED, REFUSED, is_verbose, say
from oldphoto.errors import OldphotoError, UsageError

COMMANDS = {
    "restore": "oldphoto.cli.restore:restore",
    "deblur": "oldphoto.cli.deblur:deblur",
    "denoise": "oldphoto.cli.denoise:denoise",
    "diagnose": "oldphoto.cli.diagnose:diagnose",
    "mask": "oldphoto.cli.mask:mask",
    "age": "oldphoto.cli.age:age",
    "train": "oldphoto.cli.train:train",
    "evaluate": "oldphoto.cli.evaluate:evaluate",
    "weights": "oldphoto.cli.weights:weights",
}
"""Name -> module:function. These modules import torch, numpy and the like inside their functions only."""

_GO_ON = ": finished photos stay, the same command goes on with the rest"
_AFTERWARDS = {
    **dict.fromkeys(("restore", "deblur", "denoise", "mask", "age"), _GO_ON),
    "train": ": what was trained is saved, --resume goes on with it",
}


class LazyGroup(click.Group):
    """Imports a command when it is asked for, and turns whatever ends it into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands whose modules exist, in the order of the table."""
        return [name for name, place in COMMANDS.items() if importlib.util.find_spec(place.partition(":")[0])]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module, _, function = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), function)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; exit with 2 for a refused request, 1 for a failure, 130 for an interrupt."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # click itself knows what to do
        except KeyboardInterrupt:
            say(f"oldphoto: interrupted{_AFTERWARDS.get(ctx.invoked_subcommand or '', '')}")
            ctx.exit(INTERRUPTED)
        except Exception as error:
            if isinstance(error, (OldphotoError, OSError)):
                say(f"oldphoto: {error}")
            else:
                command = self.get_command(ctx, ctx.invoked_subcommand or "")
                more = any(option.name == "verbose" for option in command.params) if command else False
                please = f"please report this{' with what -v shows' if more else ''}"
                say(f"oldphoto: unexpected {type(error).__name__}: {error} ({please})")
            if is_verbose(ctx):
                click.echo(traceback.format_exc(), err=True)
            ctx.exit(REFUSED if isinstance(error, UsageError) else FAILED)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """Bring old photographs back to life: scratches, folds, grain, blur and fading removed, faces refined."""

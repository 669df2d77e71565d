"""Flags of ``pranet tokens``."""

import argparse
from datetime import date, timedelta

from service.commands.flags.settings import add_settings

YEAR = timedelta(days=365)

EXAMPLES = """\
examples:
  pranet tokens add endoscopy-2 --expires 2027-12-31 --api-tokens-file tokens
  pranet tokens list --api-tokens-file tokens
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``add``, ``remove`` and ``list``."""
    actions = parser.add_subparsers(metavar="WHAT", required=True)
    adding = actions.add_parser("add", help="create a token and print it once; the file stores only its hash")
    adding.add_argument("--expires", type=_last_day, metavar="YYYY-MM-DD", help="last day of validity (UTC)")
    removing = actions.add_parser("remove", help="revoke a token")
    listing = actions.add_parser("list", help="list the holders, and how long their tokens are valid")
    for action in (adding, removing):
        action.add_argument(
            "name", metavar="NAME", help="name of its holder: letters, digits, dots, dashes, underscores"
        )
    for action, act in ((adding, "add"), (removing, "remove"), (listing, "list")):
        add_settings(action, ("api_tokens_file",))
        action.set_defaults(act=act, done="read" if action is listing else "changed")


def _last_day(text: str) -> date:
    """Parse ``--expires``.

    Raises:
        ArgumentTypeError: it is not a date, or one in the past.

    """
    from service.access.tokens import today  # here, because it imports gRPC, which help does not need

    try:
        day = date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a date; give the last day of validity as YYYY-MM-DD, such as {today() + YEAR}"
        ) from None
    if day < today():
        raise argparse.ArgumentTypeError(
            f"{day} is in the past, so the token would never be valid; today is {today()} in UTC"
        )
    return day

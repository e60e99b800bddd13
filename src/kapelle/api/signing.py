"""Who signs a decision: whoever's token it is, whatever the request says."""

from kapelle.adapters.http.problems import Fault, Refused


def check_author(author: str | None, person: str) -> None:
    """Refuse (422) a decision in another one's name; `author` may be left out."""
    if author and author != person:
        raise Refused(
            422,
            "author-not-you",
            f"your token is {person!r}'s, and nobody signs as another",
            faults=[Fault("/author", f"leave it out, or ask with a token of {author!r}'s own")],
        )

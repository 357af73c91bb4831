"""
What the demo stores: notes.
"""

from typing import ClassVar

from django.core.exceptions import ValidationError
from django.db import models


class Note(models.Model):
    """
    A line of text, seen by every visitor.

    Attributes:
        LIMIT: How many notes there may be; anybody may add one, so there is a bound.

        text: 1 to 200 characters.
    """

    LIMIT: ClassVar[int] = 50

    text = models.CharField(max_length=200)

    class Meta:
        ordering = ("-pk",)

    def __str__(self) -> str:
        return self.text

    def clean(self) -> None:
        """
        Refuse a new note when there are :attr:`LIMIT` already.

        Two processes that count at the same moment can both pass and go one over,
        which a demo can live with.
        """
        if self.pk is None and Note.objects.count() >= self.LIMIT:
            raise ValidationError(
                f"There are {self.LIMIT} notes already. Delete one to make room."
            )

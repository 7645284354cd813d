"""One run: launch, settings, record, trainers, asking what it left."""

from . import chatter as chatter  # before any library: some speak while they are loaded

"""Episodes in and out of other formats: one adapter a file, named in the registry as `formats`."""

from foreworld.data.formats.convert import Imported as Imported
from foreworld.data.formats.convert import export_episodes as export_episodes
from foreworld.data.formats.convert import import_episodes as import_episodes
from foreworld.data.formats.recording import Format as Format
from foreworld.data.formats.recording import Notes as Notes
from foreworld.data.formats.recording import Recording as Recording
from foreworld.data.formats.recording import Selection as Selection

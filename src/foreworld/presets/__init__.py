"""Complete configs by name: one size dial per family."""

from foreworld.presets.family import Family as Family

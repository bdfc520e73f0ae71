"""The whole test of a family: the kit, on every spec."""

from foreworld_gru import GRU, GRUConfig

from foreworld.testing import Check, parametrize_conformance


@parametrize_conformance(lambda spec: GRU(spec, GRUConfig(units=48)))
def test_conformance(check: Check) -> None:
    check()

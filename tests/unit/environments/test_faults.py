"""What is wrong with environments, and whom to tell."""

from __future__ import annotations

import pytest

from jens.environments.dangling import Dangling
from jens.environments.faults import plan_faults, tell_who_names_it
from jens.environments.model import Applied, EnvironmentsPlan, Previous, RefusedLinks
from jens.environments.plan import plan_environments, refuse_losses
from jens.events import CHECKOUT, COMMIT, CONTENT, MANDATORY_BRANCH, NOT_FETCHED
from jens.model import Branch, Commit, Definition, Expansion, Fault, IllFormed, Library, Ref
from jens.purgeguard import PurgeGuard
from tests.values import DUMMY, MASTER, QA, A, modules

ANN, BOB = "ann@example.org", "bob@example.org"
NOTHING = Library({}, {})


def _defined(name: str, address: str, ref: Ref | None = None, default: Branch | None = MASTER) -> Definition:
    return Definition(name, default, {DUMMY: ref} if ref else {}, (address,), None, f"{name} {default}".encode())


X_OF_ANN, X_OF_BOB = _defined("x", ANN), _defined("x", BOB)
INFERRED = Definition("x", None, {DUMMY: MASTER})


@pytest.mark.parametrize(
    ("plan", "previous", "applied", "told"),
    [
        pytest.param(
            *(EnvironmentsPlan(ill_formed=(IllFormed("x", "why", (BOB,)),)), Previous(), Applied(), (BOB,)),
            id="a new ill-formed definition",
        ),
        pytest.param(
            EnvironmentsPlan(ill_formed=(IllFormed("x", "why", (BOB,)),)),
            Previous({"x": X_OF_ANN}),
            Applied((X_OF_ANN,)),
            (ANN, BOB),
            id="an ill-formed definition that names somebody else",
        ),
        pytest.param(
            *(
                EnvironmentsPlan(ill_formed=(IllFormed("x", "why"),)),
                Previous({"x": X_OF_ANN}),
                Applied((X_OF_ANN,)),
                (ANN,),
            ),
            id="an ill-formed definition that names nobody",
        ),
        pytest.param(
            *(EnvironmentsPlan(unchanged=(X_OF_ANN,), refused_changes={"x": "why"}, not_done=(X_OF_BOB,)), Previous()),
            *(Applied((X_OF_ANN,)), (ANN, BOB)),
            id="a change that is refused",
        ),
        pytest.param(
            *(
                EnvironmentsPlan(excess="why", not_done=(_defined("y", BOB), X_OF_ANN)),
                Previous(),
                Applied(),
                (ANN, BOB),
            ),
            id="environments that are too many",
        ),
        pytest.param(
            *(
                EnvironmentsPlan(changed=(X_OF_ANN,)),
                Previous(),
                Applied((X_OF_ANN, INFERRED), problems={"x": "why"}),
                (ANN,),
            ),
            id="an environment that waits, of which nobody knows what it was",
        ),
        pytest.param(
            *(
                EnvironmentsPlan(deleted=("x",)),
                Previous({"x": X_OF_ANN}),
                Applied((X_OF_ANN,), problems={"x": "why"}),
                (ANN,),
            ),
            id="an environment that cannot be removed",
        ),
        pytest.param(
            *(EnvironmentsPlan(new=(X_OF_ANN,)), Previous()),
            *(Applied((X_OF_ANN,), refused=(RefusedLinks("x", DUMMY, ("master",), ("modules/dummy",)),)), (ANN,)),
            id="links that lead out",
        ),
    ],
)
def test_a_fault_of_an_environment_names_whom_its_definitions_name(
    plan: EnvironmentsPlan, previous: Previous, applied: Applied, told: tuple[str, ...]
) -> None:
    [fault] = plan_faults(plan, previous, applied, NOTHING, ())
    assert fault.addresses == told


def test_a_dangling_link_names_whom_its_definition_names() -> None:
    dangling = [Dangling("x", str(DUMMY), "branch 'idea'")]
    [fault] = plan_faults(EnvironmentsPlan(unchanged=(X_OF_ANN,)), Previous(), Applied((X_OF_ANN,)), NOTHING, dangling)
    assert fault.addresses == (ANN,)


def test_a_plan_has_the_definitions_that_are_not_carried_out() -> None:
    plan = plan_environments({"x": X_OF_ANN, "y": _defined("y", BOB)}, Previous(), (), PurgeGuard(50), most=1)
    assert [definition.name for definition in plan.not_done] == ["y"]
    many = modules(*(f"m{number:02}" for number in range(20)))
    expansion = Expansion({repo: {MASTER: A} for repo in many})
    plan = EnvironmentsPlan(changed=(_defined("x", BOB, default=QA),), not_done=(X_OF_ANN,))
    found = refuse_losses(plan, Previous({"x": X_OF_ANN}), expansion, PurgeGuard(50))
    assert [*found.refused_changes] == ["x"]
    assert found.not_done == (X_OF_ANN, _defined("x", BOB, default=QA))


@pytest.mark.parametrize(
    ("kind", "ref", "named", "told"),
    [
        (COMMIT, "4f0c", Commit("4f0c"), (ANN,)),
        (COMMIT, "4f0c", Commit("4f0d"), ()),
        (COMMIT, A, Commit(A), (ANN,)),
        (CONTENT, f".{A}", Commit(A[:7]), (ANN,)),
        (CONTENT, "feature~x", Branch("feature/x"), (ANN,)),
        (CONTENT, "qa", MASTER, ()),
        (CONTENT, "qa", None, ()),
        (CHECKOUT, A, Commit(A[:7]), (ANN,)),
        (MANDATORY_BRANCH, "master", MASTER, ()),
        (NOT_FETCHED, "", MASTER, ()),
    ],
)
def test_a_fault_of_a_ref_names_whom_definitions_name_that_override_with_it(
    kind: str, ref: str, named: Ref | None, told: tuple[str, ...]
) -> None:
    other = Definition("other", MASTER, {modules("other")[0]: named} if named else {}, (BOB,))
    fault = Fault(kind, "why", repository=str(DUMMY), ref=ref)
    assert tell_who_names_it([fault], [_defined("x", ANN, named), other]) == [fault._replace(addresses=told)]

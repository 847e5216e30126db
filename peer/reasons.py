"""Why a program is refused, or rightly differs: the table of docs/migration.md, with patterns."""

from __future__ import annotations

import re
from pathlib import Path

import attrs

PAGE = Path(__file__).parent.parent / "docs" / "migration.md"


@attrs.frozen
class Reason:
    """A row of the table "Refused, and why".

    Attributes:
        title: The first cell of the row.
        message: What is found in the note of a case or a test.
        program: What is found in its name.
        differs: Whether it is a difference that is meant, rather than a refusal.
    """

    title: str
    message: str
    program: str = ""
    differs: bool = False


REASONS = (
    Reason("Sequential enumeration", r"'enumerate': 'sequential'|\"enumerate\": 'sequential'"),
    Reason("Local draws in enumeration, `num_samples`", r"marked for num_samples="),
    Reason(
        "An observed value that is broadcast",
        r"observed value of the site .*Broadcasting",
        r"test_plate|scoping_mixture|diag_normals",
    ),
    Reason("A guide's value that is broadcast", r"The value of the site 'R0'", "epidemiology"),
    Reason(
        "TraceMeanField_ELBO with a site that is not reparameterised",
        r"is not reparameterised, so TraceMeanField_ELBO",
    ),
    Reason("Plates that are no tree", r"Expected tree-structured plate nesting"),
    Reason("Baselines", r'infer=\{"baseline"'),
    Reason("Python control flow in several particles", r"runs under vmap, which stopped"),
    Reason(
        "`Delta(..., log_density=...)` in TraceMeanField_ELBO",
        r"^loss: ",
        r"sparse_gamma_def, (easy|auto) guide, TraceMeanField_ELBO",
        differs=True,
    ),
    Reason(
        "Posteriors of sites that the guide enumerates, or of several particles",
        r"of which it has the posterior itself|but a posterior is at one draw",
        r"test_(compute_marginals|backwardsample_posterior)_restrictions",
    ),
    Reason(
        "A latent site that neither the guide has nor is enumerated",
        r"they are not enumerated, so their posterior would be their prior",
        r"test_backwardsample_posterior_smoke",
    ),
    Reason("Marginals of nothing", r"found no site to sum out", "test_marginals_2678"),
    Reason("Packed sequences in several particles", r"got a PackedSequence under a transform"),
    Reason("Two networks under one name", r"has the shape .* but the model declares", "cevae"),
    Reason(
        "A plate in the guide alone",
        r"Found plate statements in guide|RUNS: Pyro refuses this|found no site to enumerate|"
        r"guide has the sites \['plate'\]",
        "test_iplate_in_guide_not_model_error",
        differs=True,
    ),
    Reason(
        "A batch dimension without a plate",
        r"RUNS: Pyro refuses this",
        r"plate_dim_error",
        differs=True,
    ),
    Reason(
        "The dimension of vectorised particles",
        r"assert torch\.Size",
        r"vectorized_num_particles",
        differs=True,
    ),
    Reason(
        "The warning of a broken plate with validation off",
        r"possibly invalid dependency",
        r"dependency_warning \[False",
        differs=True,
    ),
)


def reason_for(program: str, note: str, *, differs: bool) -> Reason | None:
    """The row that covers a refusal or a difference."""
    for reason in REASONS:
        covers = re.search(reason.program, program) and re.search(reason.message, note)
        if covers and (reason.differs or not differs):
            return reason
    return None


def missing_rows() -> list[str]:
    """The titles that the page lacks."""
    page = PAGE.read_text()
    return [reason.title for reason in REASONS if f"| {reason.title} |" not in page]

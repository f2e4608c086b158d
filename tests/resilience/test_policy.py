"""What a SOURCE says of its rules, in our words or in those of the first SQLFlow."""

import pytest
from pydantic import ValidationError

from sqlflow_dagster.resilience.policy import DEFAULTS, ResilienceOptions, policy


def rules(given, **more):
    return policy(DEFAULTS["api"], options=ResilienceOptions.model_validate(given), **more)


def test_the_objects_of_the_first_sqlflow_are_the_same_rules():
    old = {
        "retry": {
            "max_attempts": 4,
            "initial_delay": 2.0,
            "max_delay": 9,
            "backoff_multiplier": 3,
            "jitter": True,
        },
        "circuit_breaker": {"failure_threshold": 3, "recovery_timeout": 7.0},
        "rate_limit": {"max_requests_per_minute": 40, "burst_size": 4, "backpressure_strategy": "queue"},
        "recovery": {"enable_connection_recovery": True, "enable_credential_refresh": True},
    }
    new = {
        "first_wait_seconds": 2, "longest_wait_seconds": 9, "factor": 3, "breaker_failures": 3,
        "breaker_recovery_seconds": 7, "burst": 4, "when_limited": "queue",
    }  # fmt: skip
    assert rules(old) == rules(new, max_retries=3, rate_limit=40)


def test_the_parameters_of_the_source_win():
    given = {"max_attempts": 4, "max_requests_per_minute": 40}
    assert rules(given).attempts == 4
    assert rules(given).rate == 40
    both = rules(given, max_retries=0, rate_limit=600)
    assert (both.attempts, both.rate, both.burst) == (1, 600, 10)


@pytest.mark.parametrize(
    "given",
    [
        {"retry": {"jitter": False}},
        {"circuit_breaker": {"success_threshold": 2}},
        {"retry": 3},
        {"max_attempts": 0},
    ],
    ids=str,
)
def test_what_cannot_be_honoured_is_refused(given):
    with pytest.raises(ValidationError):
        rules(given)

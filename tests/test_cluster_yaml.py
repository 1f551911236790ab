"""cluster.yaml is what Ray's own launcher accepts, and keeps what must not be lost from it."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_cluster_yaml_is_valid_against_rays_own_schema(cluster: dict[str, Any]) -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)


def test_ray_prepares_cluster_yaml_as_it_stands(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    validate_config(fillout_defaults(cluster))


def test_trials_run_on_spot_workers_with_gpus_and_not_on_the_head(cluster: dict[str, Any]) -> None:
    types = cluster["available_node_types"]
    head = types.pop(cluster["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert all(kind["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot" for kind in types.values())
    assert all(kind["resources"]["GPU"] >= 1 and kind["min_workers"] == 0 for kind in types.values())


def test_the_cluster_asks_for_a_token_and_keeps_its_dashboard_to_itself(cluster: dict[str, Any]) -> None:
    starts = [*cluster["head_start_ray_commands"], *cluster["worker_start_ray_commands"]]
    assert all("RAY_AUTH_MODE=token" in command for command in starts if "ray start" in command)
    assert any("--dashboard-host=127.0.0.1" in command for command in cluster["head_start_ray_commands"])
    assert not any("0.0.0.0" in command for command in starts)

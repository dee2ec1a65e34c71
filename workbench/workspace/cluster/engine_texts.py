"""The files that engines take, as text. Who has the engine submits them; nothing of it is needed here.

The job stops with a checkpoint on SIGTERM or SIGUSR1 and then leaves with exit code 75, which means:
start me again with the same command.
"""

from __future__ import annotations

import json
import shlex

from ...records import yamlfile
from ..job_end import REQUEUE
from .settings import Order


def slurm_file(order: Order) -> str:
    """A batch script that requeues itself: `sbatch FILE`."""
    settings = order.settings
    options: dict[str, object] = {
        "job-name": order.name,
        "time": settings.minutes,
        "cpus-per-task": settings.cpus,
        "signal": f"B:USR1@{settings.notice}",
        "requeue": None,
        "open-mode": "append",
        "output": f"{order.name}-%j.log",
    }
    if order.gpus:
        options["gpus-per-node"] = order.gpus
    if settings.memory is not None:
        options["mem"] = f"{int(settings.memory * 1024)}M"
    for name in ("partition", "account", "qos"):
        if getattr(settings, name):
            options[name] = getattr(settings, name)
    lines = ["#!/bin/bash", f"# sbatch {order.name}.sh"]
    for name, value in {**options, **settings.options}.items():
        lines.append(f"#SBATCH --{name}" + ("" if value is None else f"={value}"))
    lines += setup_lines(order)
    lines += [
        "",
        "# Asked to stop before the time limit, or preempted: a checkpoint, then another turn.",
        "trap 'kill -USR1 $job' USR1 TERM",
        f"{shlex.join(order.command)} &",
        "job=$!",
        "wait $job; code=$?",
        "while [ $code -gt 128 ] && kill -0 $job 2>/dev/null; do wait $job; code=$?; done",
        f"if [ $code -eq {REQUEUE} ]; then scontrol requeue $SLURM_JOB_ID; exit 0; fi",
        "exit $code",
    ]
    return "\n".join(lines) + "\n"


def setup_lines(order: Order) -> list[str]:
    lines = [line.rstrip() for line in order.settings.setup.splitlines() if line.strip()]
    return ["", *lines] if lines else []


def sky_file(order: Order) -> str:
    """A managed job, started again when its machine is taken away: `sky jobs launch FILE`."""
    settings = order.settings
    resources: dict[str, object] = {"cpus": f"{settings.cpus}+"}
    if order.gpus:
        resources["accelerators"] = str(settings.options.get("gpu", "H100")) + f":{order.gpus}"
    if settings.memory is not None:
        resources["memory"] = f"{settings.memory:g}+"
    if settings.image:
        resources["image_id"] = f"docker:{settings.image}"
    resources["use_spot"] = True
    resources["job_recovery"] = {"recover_on_exit_codes": [REQUEUE]}
    data: dict[str, object] = {"name": order.name, "resources": resources}
    if settings.setup.strip():
        data["setup"] = settings.setup
    data["run"] = shlex.join(order.command)
    return f"# sky jobs launch {order.name}.yaml\n" + yamlfile.dump(data)


def dstack_file(order: Order) -> str:
    """A task, tried again when it is interrupted: `dstack apply -f FILE`."""
    settings = order.settings
    resources: dict[str, object] = {"cpu": f"{settings.cpus}.."}
    if settings.memory is not None:
        resources["memory"] = f"{settings.memory:g}GB.."
    if order.gpus:
        resources["gpu"] = {"count": order.gpus}
        if "gpu" in settings.options:
            resources["gpu"] = {"name": settings.options["gpu"], "count": order.gpus}
    data: dict[str, object] = {"type": "task", "name": order.name.lower().replace("_", "-")}
    if settings.image:
        data["image"] = settings.image
    setup = [line for line in settings.setup.splitlines() if line.strip()]
    command = shlex.join(order.command)
    again = f"while {command}; code=$?; [ $code -eq {REQUEUE} ]; do :; done; exit $code"
    data["commands"] = [*setup, again]
    data["resources"] = resources
    data["max_duration"] = f"{settings.minutes}m"
    data["retry"] = {"on_events": ["no-capacity", "interruption"], "duration": "7d"}
    return f"# dstack apply -f {order.name}.dstack.yml\n" + yamlfile.dump(data)


def ray_file(order: Order) -> str:
    """A script that submits the job and again while it asks for that: Ray does not do it itself."""
    settings = order.settings
    inside = "; ".join([*settings.setup.strip().splitlines(), shlex.join(order.command)])
    # Ray tells success and failure apart, no more: the wish to go on is said in the job's output.
    again = f'{inside}; code=$?; [ $code -eq {REQUEUE} ] && echo "to be continued"; exit $code'
    command = ["ray", "job", "submit"]
    command += [f"--entrypoint-num-cpus={settings.cpus}", f"--entrypoint-num-gpus={order.gpus}"]
    if settings.memory is not None:
        command.append(f"--entrypoint-memory={int(settings.memory * 1e9)}")
    if settings.image:
        environment = json.dumps({"image_uri": settings.image})
        command.append(f"--runtime-env-json={environment}")
    command += ["--", "bash", "-c", again]
    lines = [
        "#!/bin/bash",
        f"# RAY_API_SERVER_ADDRESS=http://HEAD:8265 bash {order.name}.sh",
        "set -o pipefail",
        f"for turn in $(seq {settings.requeues + 1}); do",
        f"  {shlex.join(command)} | tee {shlex.quote(order.name + '.log')} && exit 0",
        f"  grep -q '^to be continued' {shlex.quote(order.name + '.log')} || exit 1",
        "done",
        "exit 1",
    ]
    return "\n".join(lines) + "\n"

"""A real Slurm of one machine: two nodes, its own munge, on ports of its own, without accounting.

Needs Debian's packages slurmctld, slurmd, slurm-client and munge. The daemons are children of the
process that starts them and stay in the foreground, so that nothing is left behind.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

NEEDED = ("slurmctld", "slurmd", "sbatch", "squeue", "munged")
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
CONF = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
KillWait=3
MinJobAge=3600
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PropagateResourceLimits=NONE
SlurmdParameters=config_overrides
NodeName=127.0.0.1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 State=UNKNOWN
NodeName=127.0.0.2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 State=UNKNOWN
PartitionName=lab Nodes=127.0.0.1,127.0.0.2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """The programs that this machine lacks."""
    return [name for name in NEEDED if shutil.which(name, path=SEARCH) is None]


class Lab:
    """The cluster; `folder` must have a short path, for munge's socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        self.daemons: list[subprocess.Popen[bytes]] = []

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PATH": SEARCH, "SLURM_CONF": str(self.conf)}

    def start(self) -> None:
        """Start the daemons and wait for two idle nodes."""
        (self.folder / "state").mkdir()
        for node in ("127.0.0.1", "127.0.0.2"):
            (self.folder / "spool" / node).mkdir(parents=True)
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        self.conf.write_text(
            CONF.format(
                host=socket.gethostname().partition(".")[0],
                user=getpass.getuser(),
                folder=self.folder,
                ports=free_ports(3),
            )
        )
        munge = ["munged", "-F", "--force", f"--key-file={key}"]
        munge += [f"--socket={self.folder}/munge.sock", f"--pid-file={self.folder}/munged.pid"]
        munge += [f"--log-file={self.folder}/munged.log", f"--seed-file={self.folder}/munged.seed"]
        self.run(munge)
        wait_until((self.folder / "munge.sock").exists)
        self.run(["slurmctld", "-D", "-c"])
        self.run(["slurmd", "-D", "-N", "127.0.0.1"])
        self.run(["slurmd", "-D", "-N", "127.0.0.2"])
        wait_until(lambda: self.ask("sinfo", "-h", "-o", "%D %t") == "2 idle")

    def run(self, command: list[str]) -> None:
        with open(self.folder / "daemons.log", "ab") as log:
            self.daemons.append(
                subprocess.Popen(
                    command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
            )

    def ask(self, *command: str) -> str:
        """What one of Slurm's commands prints."""
        result = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )
        return result.stdout.strip()

    def stop(self) -> None:
        """End all jobs, then the daemons, then whatever is left of either."""
        self.ask("scancel", "-u", getpass.getuser())
        end = time.monotonic() + 10
        while self.ask("squeue", "-h") and time.monotonic() < end:
            time.sleep(0.1)
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in reversed(self.daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("SLURM_CONF") == str(self.conf):
                    process.kill()


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens at."""
    sockets = [socket.socket() for _ in range(count)]
    for probe in sockets:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in sockets]
    for probe in sockets:
        probe.close()
    return ports


def wait_until(true, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "Slurm did not start"
        time.sleep(0.1)

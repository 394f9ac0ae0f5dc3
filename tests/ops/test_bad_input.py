"""Bad input of a command is one clear line on standard error, exit status 2, and no new file.

CASES has a row per mistake: the command, its bad files, and what the line must say. Beside these
files, every command finds those of GIVEN and the journal of a run.
"""

import shlex

import pytest
from checkouts import ROOT
from live_things import JOBS, Still, Wanting
from messages import assert_one_line
from request_logs import requests_of

from faro_lib.workload import Job
from faro_ops import cli
from faro_ops.operate.controller.controller import table_reader
from faro_ops.operate.loop.loop import run
from faro_ops.operate.rayserve.spec import serve_specs

pytestmark = pytest.mark.usefixtures("coarse_tables")

COUNTS = "minute,job,requests\n0,a,5\n0,b,5\n1,a,5\n1,b,5\n"
LOG = requests_of(60).to_csv(index=False)
NO_LATENCIES = requests_of(60).drop(columns="latency_s").to_csv(index=False)
GIVEN = {
    "jobs.yaml": "- job: a\n- job: b\n",
    "cluster.yaml": (ROOT / "cluster/jobs.yaml").read_text(),
    "counts.csv": COUNTS,
    # Two days of an hour.
    "days.csv": "day,minute,job,requests\n"
    + "".join(
        f"{day},{minute},{job},{60 + minute % 7}\n"
        for day in (1, 2)
        for minute in range(60)
        for job in ("a", "b", "c")
    ),
    # A day from midnight to midnight.
    "timed.csv": "time,job,requests\n"
    + "".join(
        f"2026-11-26T{minute // 60:02}:{minute % 60:02}Z,a,400\n" for minute in range(24 * 60)
    ),
    "log.csv": LOG,
    "replicas.csv": "time,job,replicas\n2026-03-01T23:00:00,a,2\n2026-03-01T23:00:00,b,1\n",
}

# --- words of the command line --------------------------------------------------------------------

WORDS = {
    "": [
        ("advise", "All options: faro --help"),
        ("recommend --size 3", "All options: faro recommend --help"),
        ("run", "All options: faro run --help"),
    ],
    "simulate": [
        ("--capacity 9", "9 replicas are fewer than the 10 jobs of synthetic"),
        ("--capacity 0", "'--capacity': Input should be greater than or equal to 1"),
        ("--capacity many", "--capacity"),
        ("--capacity 1000000000", "'--capacity': Input should be less than or equal to 1000000"),
        ("--replicas 32", "No such option: --replicas"),
        ("--workload none.csv", "none.csv: no such file"),
        ("--workload synthetc", "did you mean 'synthetic'?"),
        ("--policy fairshare", "did you mean 'FairShare'?"),
        ("--polcy AIAD", "--policy"),
        ("--trials 0", "trials=0"),
        ("--trials 1000000000", "trials=1000000000"),
        ("--jobs none.yaml", "none.yaml: no such file"),
        ("--forecaster crystal-ball --minutes 1", "forecaster='crystal-ball' is unknown"),
        ("--forecaster bayes", "posterior=None: the bayes forecaster is not fitted"),
        ("--forecaster ar --posterior p.npz", "is for forecaster 'bayes' or 'auto'"),
        (
            "--workload counts.csv --capacity 6",
            "Static learns from earlier days, and there is a single day",
        ),
        (
            "--workload counts.csv --capacity 6",
            "or choose policies that do not learn: FairShare, AIAD",
        ),
    ],
    "recommend": [
        ("", "give one of --workload FILE, --prometheus URL and --journal FILE"),
        (
            "--workload my.csv --journal run.journal",
            "give one of --workload FILE, --prometheus URL and --jour",
        ),
        ("--capacity 1000000000", "'--capacity': Input should be less than or equal to 1000000"),
        ("--workload none.csv", "none.csv: no such file"),
        ("--journal none.jsonl", "none.jsonl: no such file"),
        ("--journal counts.csv", "not a line of a journal"),
        ("--workload my.csv --hours 3", "--hours is for --prometheus, which is not given"),
        ("--workload my.csv --plot x.gif", "plot='x.gif' is not a picture"),
        ("--workload days.csv --plot nowhere/curve.png", "nowhere/curve.png"),
        ("--workload my.csv --dispatch best", "dispatch='best' is unknown; accepted: "),
        (
            "--workload days.csv --forecaster oracle",
            "forecaster='oracle' knows the future; accepted: ar",
        ),
        ("--workload days.csv --forecaster arr", "forecaster='arr'"),
        (
            "--workload days.csv --forecaster bayes",
            "forecaster='bayes' needs a posterior, which the pipeline fits",
        ),
        (
            "--workload days.csv --max-violation-rate 2",
            "max_violation_rate=2.0 must be a share in [0, 1)",
        ),
        ("--workload days.csv --capacity 0", "greater than or equal to 1"),
        ("--workload days.csv --capacity 2", "cannot hold the minimum of 3 jobs"),
        ("--workload days.csv --capacity 2 --curve", "cannot hold the minimum of 3 jobs"),
        ("--workload days.csv --objective sum", "objective='sum' is unknown"),
        ("--workload days.csv --objective sum --capacity 9", "did you mean 'Sum'?"),
        ("--workload days.csv --at 999", "at=999 is not on the last day; accepted: 1..60"),
        ("--workload timed.csv --at noon", "at='noon': time is neither ISO 8601"),
        ("--workload timed.csv --at 25:77", "at='25:77': time is neither ISO 8601"),
        (
            "--workload timed.csv --at 2026-11-21T12:30Z",
            "at=2026-11-21T12:30Z is not on the last day; accepted: 2026-11-26T00:01",
        ),
        ("--prometheus http://127.0.0.1:1", "--prometheus needs --query"),
        (
            "--prometheus http://127.0.0.1:1 --query up",
            "http://127.0.0.1:1: no answer from Prometheus (",
        ),
        (
            "--prometheus http://127.0.0.1:1 --query up --at 30",
            "--at is for --workload and --journal; with --prometheus, the history ends now",
        ),
        (
            "--prometheus localhost --query up",
            "prometheus='localhost' must be an http:// or https:// address",
        ),
    ],
    "run --jobs jobs.yaml": [
        ("--capacity 1000000000", "'--capacity': Input should be less than or equal to 1000000"),
        ("--log xml", "log='xml' is unknown; accepted: text, json"),
        ("--ca-file none.pem", "ca_file='none.pem': no such file; a PEM file with certificates"),
        ("--metrics-port 70000", "'--metrics-port': Input should be less than or equal to 65535"),
        ("--start-timeout 0", "start_timeout_s=0.0 must be a number > 0"),
        ("--backend rey", "backend='rey' is unknown; accepted: local, rayserve, deployments"),
        ("--stale-after -1", "stale_after_s=-1.0 must be a number >= 0"),
        ("--deadline 0", "deadline_s=0.0 must be None or a number > 0"),
        ("--policy AIDA", "policy='AIDA' is unknown; did you mean 'AIAD'?"),
        ("--policy AIAD", "backend=rayserve needs --address, Ray's dashboard, http://host:8265"),
        ("--policy AIAD --address here", "address='here' must be an http:// or https:// address"),
        (
            "--policy AIAD --backend local",
            "backend=local needs --capacity, the cores of the cluster that it starts",
        ),
        (
            "--policy AIAD --backend local --capacity 100000",
            "100000 replicas of Ray Serve need about",
        ),
        ("--policy AIAD --address http://127.0.0.1:9", "no Ray Serve at http://127.0.0.1:9"),
        (
            "--policy AIAD --journal jobs.yaml/j",
            "jobs.yaml: is a file, and a folder is needed",
        ),
        ("--act ceilings", "act=ceilings needs --backend deployments"),
        ("--act bounds", "act='bounds' is unknown; accepted: replicas, ceilings"),
    ],
    "manifests --jobs cluster.yaml --out m": [
        ("--policy Faro-Sun", "did you mean 'Faro-Sum'"),
        ("--backend nomad", "backend='nomad' is unknown"),
        ("--workers 1 --worker-cores 2", "cannot hold the minimum of 3 jobs, 3 cores"),
        ("--backend deployments", "needs prometheus"),
        (
            "--backend deployments --prometheus bogus",
            "prometheus='bogus' must be an http:// or https://",
        ),
        ("--head-cpu 0", "head: cpu=0.0 must be a number > 0"),
        ("--operator-namespace A", "operator_namespace='A' is not a Kubernetes name"),
        ("--tick 0", "tick_s=0.0 must be a number > 0"),
        ("--namespace Bad_Name", "namespace='Bad_Name' is not a Kubernetes name"),
        ("--image 'x y'", "image='x y' is not an image name: NAME:TAG or NAME@sha256:DIGEST"),
        ("--image faro@sha256:12", "is not an image name"),
        (f"--name {'x' * 64}", "must be a letter, then at most 46 of a-z, 0-9 and -"),
        ("--option=--earning", "No such option: --earning"),
        ("--option=--stale-after=-1", "stale_after_s=-1.0 must be a number >= 0"),
        ("--option=--log=xml", "log='xml' is unknown; accepted: text, json"),
        ("--option=--deadline=x", "Invalid value for '--deadline'"),
        ("--act ceilings", "act=ceilings needs --backend deployments"),
        ("--act bounds", "act='bounds' is unknown; accepted: replicas, ceilings"),
        (
            "--act ceilings --backend deployments --prometheus http://p:9090 --policy FairShare",
            "policy='FairShare' makes no pred",
        ),
    ],
    "explain run.journal": [
        ("--at -1", "at=-1 is before the first decision, at 10 s"),
        ("--at noon", "must be seconds or a clock time such as 19:05"),
        ("--at 19:05", "has no clock times"),
        ("--at nan", "at=nan"),
    ],
    "set": [
        ("x --replicas 2 --journal run.journal", "job='x' is not in"),
        ("a --journal run.journal", "needs one of --replicas"),
        ("a --replicas 2 --freeze --journal run.journal", "needs one of"),
        ("a --load 0 --journal run.journal", "load=0.0"),
        ("a --load 2 --until 25:00 --journal run.journal", "time='25:00' must read HH:MM"),
        (
            "a --load 2 --from 2030-01-02 --until 2030-01-01 --journal run.journal",
            "ends before it begins",
        ),
        ("a --replicas 2", "needs one of --journal and --plan"),
        ("a --replicas 2 --plan faro/faro --journal j", "needs one of --journal and --plan"),
    ],
    "freeze": [
        ("", "faro freeze needs one of --journal and --plan"),
        ("--journal j --plan n/p", "needs one of --journal and --plan"),
        ("--until 2020-01-01 --journal run.journal", "ends before it begins"),
        ("--journal typo", "typo: no such file; expected a journal of `faro run`"),
    ],
    "replay": [("run.journal --policy Fairshare", "FairShare")],
    "shadow": [("run.journal", "minutes of plans; a score needs at least 120")],
    "trust": [("run.journal", "no authority is recorded; start `faro run` with --earn")],
    "arena run HPA": [
        ("--scenario steady", "scenario='steady' is unknown; did you mean 'steady-v1'?"),
        ("--hidden-seed -1", "hidden-seed"),
        ("--public --hidden-seed 3", "give one of them"),
    ],
    "gpus": [("nowhere.csv", "nowhere.csv: no such file")],
    "audit --prometheus http://localhost:1 --jobs jobs.yaml --query q --replicas-query r": [
        (f"--latency {latency}", "must be QUANTILE=PROMQL")
        for latency in ("p99=q", "1.5=q", "nan=q", "0.99=", "q")
    ],
    "audit --jobs jobs.yaml": [
        ("--workload log.csv", "a request log has no replicas; give --replicas-file"),
    ],
}

# --- files ----------------------------------------------------------------------------------------

FILES = {
    ("simulate --policy FairShare --capacity 4 --workload bad.csv", "bad.csv"): [
        ("", "not a table"),
        ("\0\1", "bad.csv"),
        ("minute,job,requests\n", "no rows"),
        (
            "minute,job\n0,a\n",
            "column 'requests' is missing; expected job, requests, and minute[, day] or time",
        ),
        (
            "minutes,job,requests\n0,a,1\n",
            "column 'minute' or 'time' is missing; expected job, requests, and minute",
        ),
        ("timestamp,service\n0,a\n", "column 'requests' is missing"),
        (
            COUNTS.replace("1,a,5", "1,a,-5"),
            "line 4: requests=-5 for job 'a' at minute 1 is negative",
        ),
        (
            COUNTS.replace("1,a,5", "1,a,5.5"),
            "line 4: requests=5.5 for job 'a' at minute 1 is not whole",
        ),
        (
            COUNTS.replace("1,a,5", "1,a,many"),
            "line 4: requests=many for job 'a' at minute 1 is not a number",
        ),
        (COUNTS.replace("1,a,5", "1,a,"), "is not a number"),
        (
            COUNTS.replace("1,a,5", "1,a,inf"),
            "line 4: requests=inf for job 'a' at minute 1 is too large",
        ),
        (
            COUNTS.replace("1,a,5", "1,a,1e30"),
            "line 4: requests=1e+30 for job 'a' at minute 1 is too large",
        ),
        (COUNTS.replace("1,a,5", "1,a,5,6"), "bad.csv"),
        ("minute,job,requests\n0,a,5,6\n", "line 2 has more cells than the header"),
        (COUNTS.replace("1,a", "0.5,a"), "line 4: minute=0.5"),
        (COUNTS.replace("1,", "2,"), "minute 1 is missing for job 'a'; minutes 0..2 are needed"),
        (COUNTS.replace("0,a,5\n0,b,5\n", ""), "minute 0 is missing for job 'a'"),
        (COUNTS.replace("1,b,5\n", ""), "minute 1 is missing for job 'b'"),
        (
            "day,minute,job,requests\n1,0,a,1\n1,1,a,1\n2,0,a,1\n",
            "minute 1 of day 2 is missing for job 'a'",
        ),
        (COUNTS + "1,b,5\n", "line 6: job 'b' at minute 1 occurs a second time"),
        (COUNTS + "999999999,a,5\n", "minute 2 is missing for job 'a'"),
        (
            COUNTS.replace("\n0", "\n29300000").replace("\n1", "\n29300001"),
            "minute 0 is missing",
        ),
        (COUNTS.replace("1,a", "1,"), "line 4: job is empty"),
        (COUNTS.replace(",a,", ",a\x1b[31m,"), r"job 'a\x1b[31m'"),
        (COUNTS.replace(",a,", ",été,"), "job 'été'"),
        (
            "time,job,requests\nyesterday,a,5\n",
            "time is neither ISO 8601 nor Unix time in s or ms",
        ),
        ("time,job,requests\n60,a,5\n60,a,5\n", "line 3: job 'a' at time 60 occurs a second time"),
        ("time,job,requests\n60,a,-5\n", "requests=-5 for job 'a' at time 60 is negative"),
        (
            "time,job,requests\n60,a,5\n",
            "there is no complete day from midnight to midnight",
        ),
        (
            "time,job,requests\n60,a,5\n4000000000,a,5\n",
            "time covers 46296 days; at most 366 are accepted",
        ),
        ("time,job,requests\n60,a,5\n9000000000,a,5\n", "9000000000 is after the year 2100"),
        (
            "time,job,requests\n0,a,5\n60,a,5\n86400,a,5\n",
            "1970-01-01T00:02 is missing for job 'a'",
        ),
        (
            "time,job,requests\n0,a,5\n300,b,5\n900,a,5\n",
            "the rows are 5 minutes apart; a row has the requests of one minute",
        ),
    ],
    ("run --policy AIAD --journal new.jsonl --jobs bad.yaml", "bad.yaml"): [
        ("", "bad.yaml: expected a list of jobs"),
        ("jobs", "expected a list of jobs"),
        (bytes(range(256)), "bad.yaml: not UTF-8 text"),
        ("- job: a\n  slo_s: [1\n", "bad.yaml, line 3: "),
        ("[" * 5000, "bad.yaml: "),
        (
            "- job: !!python/object:os.system a\n",
            "bad.yaml, line 1: anchors, aliases and tags are not accepted",
        ),
        ("- job: !mine a\n", "bad.yaml, line 1: anchors, aliases and tags are not accepted"),
        (
            "a: &a [x, x]\nb: &b [*a, *a]\njobs: [*b, *b]\n",
            "line 1: anchors, aliases and tags are not accepted",
        ),
        ("- slo_s: 1.0\n", "job 1: column `job` (the name) is missing"),
        ("- job: [1, 2]\n", "job 1: job=[1, 2] is not text"),
        ("- job: été\n", "name='été' must be 1 to 100 printable ASCII characters"),
        ('- job: "a\\nb"\n', r"name='a\nb' must be"),
        ('- job: "a\\e[31m"\n', r"name='a\x1b[31m' must be"),
        (f"- job: {'x' * 5000}\n", "must be 1 to 100 printable ASCII characters"),
        ("- {job: a, slo: 1.0}\n", "job 1: unknown field 'slo'; did you mean 'slo_s'?"),
        (
            "- {job: a, max_replica: 3}\n",
            "job 1: unknown field 'max_replica'; did you mean 'max_replicas'?",
        ),
        ("- {job: a, zzz: 3}\n", "job 1: unknown field 'zzz'; accepted: job, slo_s"),
        ("- job: a\n- {job: b, slo_s: soon}\n", "job 2: slo_s='soon' is not a number"),
        ("- {job: a, slo_s: -1}\n", "slo_s=-1.0 must be a finite number > 0"),
        ("- {job: a, slo_s: .nan}\n", "slo_s=nan must be a finite number > 0"),
        ("- {job: a, slo_s: true}\n", "job 1: slo_s=True is not a number"),
        ("- {job: a, slo_s: {x: 1}}\n", "job 1: slo_s={'x': 1} is not a number"),
        (f"- {{job: a, slo_s: {'9' * 400}}}\n", "is not a number"),
        (f"- {{job: a, slo_s: {'9' * 5000}}}\n", "bad.yaml: "),
        ("- job: 2026-13-45\n", "bad.yaml: "),
        ("- {job: a, min_replicas: 1.5}\n", "job 1: min_replicas=1.5 is not a whole number"),
        ("- {job: a, max_replicas: 1000000000}\n", "max_replicas=1000000000 must be"),
        ("- {job: a, service_time_s: 1.0e-9}\n", "service_time_s=1e-09 must be"),
    ],
    ("run --policy AIAD --journal new.jsonl --jobs bad.csv", "bad.csv"): [
        ("job,slo_s\n,0.5\n", "bad.csv, job 1: column `job` (the name) is missing"),
        ("job", "bad.csv: jobs is empty"),
        (b"", "bad.csv: not a table"),
        (bytes(range(256)), "bad.csv: not a table"),
    ],
    ("run --policy AIAD --jobs bad.txt", "bad.txt"): [
        ("job\na\n", "a .csv or a .yaml file"),
    ],
    ("deploy --jobs bad.yaml --address http://127.0.0.1:1", "bad.yaml"): [
        ("- {job: a, serve: {application: a/../b}}\n", "application='a/../b' must be "),
        ("- {job: a, serve: {application: ..}}\n", "application='..' must be "),
        ("- {job: a, serve: {deployment: 'a?x=1'}}\n", "deployment='a?x=1' must be "),
        ("- {job: a, serve: {route: /a b}}\n", "route='/a b' must be "),
        (
            "- {job: a, serve: {import_pth: 'm:A'}}\n",
            "job 'a': unknown key 'serve.import_pth'; did you mean 'import_path'?",
        ),
        ("- {job: a, serve: {args: 5}}\n", "job 'a': serve.args=5 must be a mapping"),
        (
            "- {job: a, serve: {concurrency: true}}\n",
            "job 'a': serve.concurrency=True must be a whole number >= 1",
        ),
        ("- {job: a, serve: {deployment: 7}}\n", "job 'a': serve.deployment=7 must be text"),
    ],
    (
        "manifests --backend deployments --prometheus http://p:9090 --out m --jobs bad.yaml",
        "bad.yaml",
    ): [
        (
            f"- {{job: a, deployment: {{{key}: 3, queries: {{}}}}}}\n",
            f"job 'a': deployment.{key}=3 must be text",
        )
        for key in ("name", "namespace", "autoscaler", "resource")
    ],
    ("run --jobs jobs.yaml --address http://127.0.0.1:9 --history bad.csv", "bad.csv"): [
        ("time,job\n2026-01-15T00:00:10,a\n2026-01-15T00:00:05,a\n", "bad.csv, row 2"),
    ],
    ("audit --jobs jobs.yaml --workload log.csv --replicas-file bad.csv", "bad.csv"): [
        (f"time,job,replicas\n2026-03-02T00:00:00,{row}\n", f"bad.csv, row 1: {line}")
        for row, line in (
            ("a,1.5", "replicas=1.5 is not a whole number >= 0"),
            ("a,-1", "replicas=-1; a number from 0 to 1e+09"),
            ("z,1", "job 'z'; the jobs are ['a', 'b']"),
            ("a,", "replicas="),
        )
    ],
    ("audit --jobs jobs.yaml --workload bad.csv --replicas-file replicas.csv", "bad.csv"): [
        (NO_LATENCIES, "column 'latency_s' is missing"),
    ],
    ("audit --jobs jobs.yaml --workload bad.csv", "bad.csv"): [
        (f"job,minute,requests,replicas,latency_p99_s\na,0,3,{row}\n", f"line 2: {line}")
        for row, line in (
            ("2.5,0.1", "replicas=2.5 is not a whole number >= 0"),
            ("-1,0.1", "replicas=-1 is not a whole number >= 0"),
            ("1,0", "latency_p99_s=0 is not a number of seconds > 0"),
            ("1,fast", "latency_p99_s=fast is not a number of seconds > 0"),
            ("1,inf", "latency_p99_s=inf is not a number of seconds > 0"),
        )
    ]
    + [
        (
            "job,day,minute,requests,replicas,latency_p99_s\na,1,0,3,1,0.1\n",
            "an audit takes a column time, or minutes of one day, but no column day",
        ),
        ("job,minute,requests,latency_p99_s\na,0,3,0.1\n", "column replicas"),
        ("job,minute,requests,replicas\na,0,3,1\n", "column latency_p99_s"),
    ],
    ("gpus bad.csv", "bad.csv"): [
        ("", "not a table"),
        ("a,b\n1,2\n", "column 'hardware' is missing; needed: hardware, model,"),
        *(
            (
                "model,hardware,tensor_parallel,prompt_size,batch_size,prompt_time,token_time\n"
                f"m,g,2,64,1,40,20\nm,g,2,64,{row}\n",
                line,
            )
            for row, line in (
                ("0,40,20", "line 3: batch_size='0' is not a whole number > 0"),
                ("1.5,40,20", "line 3: batch_size='1.5' is not a whole number > 0"),
                ("1,-2,20", "line 3: prompt_time='-2' is not a number > 0"),
                ("1,40,soon", "line 3: token_time='soon' is not a number > 0"),
                ("1,40,", "line 3: token_time='' is not a number > 0"),
                ("1,40,20", "g, m, tensor_parallel 2: too few measurements"),
            )
        ),
    ],
    ("arena run bad.py", "bad.py"): [("x = 1\n", "registers 0 policies")],
}

# --- replicas in the table of jobs ---------------------------------------------------------------

SHARED = "pool: p, models_per_replica: 2"
PAIR = (
    "kind: disaggregated, alpha_s: 0.03, beta_s: 0.0005, gamma_s: 0.0001, max_sequences: 16, "
    "output_tokens: 10, prompt_tokens: 2000, link_gbps: 100, kv_bytes_per_token: 131072"
)

TOKENS = (
    "kind: continuous, alpha_s: 0.02, beta_s: 0.001, gamma_s: 0.0001, max_sequences: 16, "
    "output_tokens: 50, prompt_tokens: 200"
)
REPLICAS = [
    (
        "{kind: magic}",
        "kind='magic' is unknown; accepted: serial, concurrent, batched, continuous",
    ),
    ("{max_batch: 4}", "must be a mapping with a kind"),
    ("{kind: batched}", "max_batch is missing"),
    (
        "{kind: batched, max_batch: 4}",
        "base_s=0.0 must be such that a batch takes at least 1e-6 s",
    ),
    (
        "{kind: batched, max_batch: 0, base_s: 1}",
        "max_batch=0 must be a whole number from 1 to 10000",
    ),
    (
        "{kind: batched, max_batch: 2, batch_s: [1, 2, 3]}",
        "one time for each size up to max_batch",
    ),
    ("{kind: batched, max_batch: 2, base: 1}", "unknown field 'base'; did you mean 'base_s'"),
    ("{kind: concurrent, at_once: many}", "has a value that is not a number"),
    (
        "{kind: concurrent, at_once: 2, slowdown: -1}",
        "slowdown=-1 must be a finite number >= 0",
    ),
    ("'{'", "is not JSON"),
    (f"{{{TOKENS}, beta_knees: [[8, 1e-3], [4, 1e-3]]}}", "with rising x > 0"),
    (f"{{{TOKENS}, gamma_knees: [[8, -1e-3]]}}", "after which no time falls"),
    (f"{{{TOKENS}, gamma_knees: [8]}}", "has a value that is not a number"),
    (f"{{{TOKENS}, gamma_knees: [[8]]}}", "must be pairs (x, extra seconds)"),
    (f"{{{TOKENS}, prompt_quantiles: [[0, 5], [0.5, 9]]}}", "that rise from share 0 to 1"),
    (f"{{{TOKENS}, prompt_quantiles: [[0.1, 5], [1, 9]]}}", "that rise from share 0 to 1"),
    (f"{{{TOKENS}, prompt_quantiles: [[0, 5], [0.5, 3], [1, 9]]}}", "that rise from share 0"),
    (f"{{{TOKENS}, prompt_quantiles: [[0, 5], [0.6, 6], [0.4, 7], [1, 9]]}}", "that rise from"),
    (f"{{{TOKENS}, prompt_quantiles: [[0, 0], [1, 9]]}}", "tokens from 1 to 1e6"),
    (f"{{{TOKENS}, prompt_quantiles: [[0, 1], [1, .inf]]}}", "tokens from 1 to 1e6"),
    (f"{{{TOKENS}, prompt_quantiles: [[0, 1], [1, .nan]]}}", "tokens from 1 to 1e6"),
    (f"{{{TOKENS}, output_quantiles: [[0, 1], [1]]}}", "must be pairs (share, tokens"),
    (f"{{{TOKENS}, output_quantiles: [[0, 1], [1, 2]], output_cv: 0.5}}", "without a cv"),
    (f"{{{TOKENS}, cache_tokens: 200}}", "enough for a prompt and an output of mean length"),
    ("{gpu: a1, model: b}", "gpu='a1' is not measured; at hand: a100-80gb, h100-80gb"),
    (
        "{gpu: h100-80gb, model: llama2-70b, tensor_parallel: 3}",
        "tensor_parallel='3' is not measured; at hand: 2, 4, 8",
    ),
    (
        "{gpu: h100-80gb, model: llama2-70b, tensor_parallel: 4, prompt_tokens: 9}",
        "output_tokens is missing",
    ),
]


def shared_jobs(kind: str = "") -> str:
    """A table of two jobs that share replicas, of this kind."""
    replica = f", replica: {{kind: {kind}}}" if kind else ""
    return "".join(f"- {{job: {job}, {SHARED}{replica}}}\n" for job in "ab")


# (command, content of bad.yaml, line)
JOBS_TABLES = [
    *(
        ("run --policy AIAD --jobs bad.yaml", f"- job: a\n  replica: {replica}\n", line)
        for replica, line in REPLICAS
    ),
    *(
        (
            f"{command} --jobs bad.yaml",
            f"- {{job: chat, slo_s: 1.0, replica: {{{PAIR}}}}}\n",
            "bad.yaml: job 'chat': replicas of kind disaggregated are simulated only",
        )
        for command in (
            "run --backend local --capacity 4",
            "deploy --address http://127.0.0.1:9",
            "profile",
            "manifests --backend deployments --image faro:1 --out m",
            "audit --workload log.csv --replicas-file replicas.csv",
        )
    ),
    *(
        (f"{command} --jobs bad.yaml", shared_jobs(), "pool")
        for command in (
            "run --earn --capacity 4",
            "manifests --out m",
            "recommend --workload synthetic",
        )
    ),
    *(
        (
            f"{command} --jobs bad.yaml",
            shared_jobs(kind),
            f"job 'a': replicas of kind {kind.partition(',')[0]} cannot be shared on Ray Serve yet",
        )
        for command in ("run --capacity 4", "deploy --dry-run --address http://127.0.0.1:1")
        for kind in ("concurrent, at_once: 4", "batched, max_batch: 4, base_s: 0.1")
    ),
]

CASES = [
    *((f"{command} {words}", {}, line) for command in WORDS for words, line in WORDS[command]),
    *(
        (command, {name: content}, line)
        for command, name in FILES
        for content, line in FILES[command, name]
    ),
    *((command, {"bad.yaml": content}, line) for command, content, line in JOBS_TABLES),
]


@pytest.fixture(scope="module")
def given(tmp_path_factory) -> dict[str, bytes]:
    """The files that every command finds: GIVEN, and the journal of a run of two jobs."""
    path = tmp_path_factory.mktemp("journal") / "run.journal"
    run(Still(), Wanting([1, 1]), JOBS, 15.0, journal=path)
    return {name: text.encode() for name, text in GIVEN.items()} | contents(path.parent)


def contents(folder) -> dict[str, bytes]:
    """The files in a folder and below it, by their paths in it.

    Without an index of a write-ahead log and an empty log: a reader of SQLite leaves them.
    """
    files = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(".db-shm")
    }
    return {name: of for name, of in files.items() if of or not name.endswith(".db-wal")}


@pytest.mark.parametrize(
    ("command", "files", "line"), CASES, ids=[f"{case[0][:40]}: {case[2][:40]}" for case in CASES]
)
def test_bad_input_is_one_line_and_changes_no_file(
    command, files, line, given, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    bad = {
        name: content if isinstance(content, bytes) else content.encode()
        for name, content in files.items()
    }
    for name, content in (given | bad).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)

    assert cli.main(shlex.split(command)) == 2

    assert_one_line(capsys.readouterr().err, line)
    assert contents(tmp_path) == given | bad


def test_a_job_with_the_name_of_faros_own_application_is_refused_on_ray_serve():
    with pytest.raises(ValueError, match="job 'faro statistics': 'faro-statistics' is reserved"):
        serve_specs((Job("faro statistics"),))


def test_a_long_value_is_shortened_and_its_line_breaks_are_not_printed(capsys):
    assert cli.main(["simulate", "--workload", "x\n\x1b" * 2000]) == 2
    said = capsys.readouterr().err
    assert_one_line(said, "workload='x")
    assert "did you mean" in said or "accepted" in said
    assert "\x1b" not in said


def test_the_command_line_refuses_published_traces_with_another_content(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / "input.json").write_text("{}")
    assert cli.main(["simulate", "--workload", "faro-10jobs"]) == 2
    assert_one_line(capsys.readouterr().err, "input.json: SHA-256 ")


def test_manifests_refuse_a_curve_that_the_controllers_pod_would_not_have(tmp_path, capsys):
    (tmp_path / "curve.csv").write_text("replicas,rate_per_replica_rps,p50_s\n")
    (tmp_path / "jobs.yaml").write_text("- {job: a, latency_curve: curve.csv}\n")
    arguments = f"--jobs {tmp_path}/jobs.yaml --out {tmp_path}/m".split()
    assert cli.main(["manifests", *arguments]) == 2
    problem = f"latency_curve='{tmp_path}/curve.csv' is a file that the controller's pod would not"
    assert_one_line(capsys.readouterr().err, f"job 'a': {problem} have; leave the column out")
    assert not (tmp_path / "m").exists()


def test_nothing_in_front_of_deployments_routes_to_shared_replicas(tmp_path):
    table = tmp_path / "jobs.yaml"
    table.write_text(shared_jobs())

    assert len(table_reader("rayserve", earn=False)(table)) == 2
    with pytest.raises(ValueError, match=r"a, b share replicas \(pool='p'\)"):
        table_reader("deployments", earn=False)(table)

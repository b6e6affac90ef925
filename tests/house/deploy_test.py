"""What is deployed fits together: manifests, rules, dashboard, documents.

Run: deploy_test.py SOURCE_DIR

Needs promtool (Debian: prometheus), PyYAML (Debian: python3-yaml) and kubectl
(Debian: kubernetes-client); what lacks its tool is skipped and says so.
"""

import glob
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

try:
    import yaml
except ImportError:
    yaml = None

METRIC = re.compile(r"\b(?:headcount|grpc_server)_[a-z0-9_]+")
PROMTOOL = shutil.which("promtool")
KUBECTL = shutil.which("kubectl")


def read(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def documented_metrics():
    """{name: type} from the table of docs/metrics.md."""
    return dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", read("docs/metrics.md"),
                           re.M))


def family(series):
    """The metric that `series` belongs to: histograms have three suffixes."""
    stem = re.sub(r"_(bucket|sum|count)$", "", series)
    return stem if documented_metrics().get(stem) == "histogram" else series


def dashboard():
    return json.loads(read("deploy/grafana/headcount.json"))


def dashboard_queries():
    """[(panel title, PromQL)] with the variables filled in."""
    return [(panel["title"],
             target["expr"].replace("$__rate_interval", "1m")
             .replace("$instance", ".*").replace("$model", ".*"))
            for panel in dashboard()["panels"]
            for target in panel.get("targets", ())]


def groups():
    return [group for name in ("headcount_recording", "headcount_alerts")
            for group in yaml.safe_load(
                read(f"deploy/prometheus/{name}.yml"))["groups"]]


def rules():
    return [rule for group in groups() for rule in group["rules"]]


def manifests(folder):
    """{kind: object} of what the kustomization of a folder lists."""
    folder = f"deploy/kubernetes/{folder}/"
    return {item["kind"]: item
            for name in yaml.safe_load(
                read(folder + "kustomization.yaml"))["resources"]
            for item in yaml.safe_load_all(read(folder + name))}


class Prometheus(unittest.TestCase):
    def promtool(self, *arguments):
        if not PROMTOOL:
            self.skipTest("promtool is not installed")
        done = subprocess.run([PROMTOOL, *arguments], capture_output=True,
                              text=True, check=False,
                              cwd=os.path.join(ROOT, "deploy/prometheus"))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_scrape_configuration_is_valid(self):
        self.promtool("check", "config", "prometheus.yml")

    def test_alerts_fire_when_they_should_and_only_then(self):
        self.promtool("test", "rules", "headcount_alerts_test.yml")

    @unittest.skipUnless(yaml, "PyYAML is not installed")
    def test_every_alert_has_a_test(self):
        tests = yaml.safe_load(
            read("deploy/prometheus/headcount_alerts_test.yml"))["tests"]
        seen_firing = {case["alertname"] for test in tests
                       for case in test.get("alert_rule_test", ())
                       if case.get("exp_alerts")}
        self.assertEqual({rule["alert"] for rule in rules()
                          if "alert" in rule}, seen_firing)

    def test_every_query_of_the_dashboard_is_promql(self):
        # JSON is YAML: each query becomes a recording rule that promtool reads.
        recorded = [{"record": f"query:{index}", "expr": query}
                    for index, (_, query) in enumerate(dashboard_queries())]
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            json.dump({"groups": [{"name": "dashboard", "rules": recorded}]},
                      file)
            file.flush()
            self.promtool("check", "rules", file.name)


class Documents(unittest.TestCase):
    def test_every_metric_of_the_dashboard_is_documented(self):
        self.assertGreater(len(dashboard_queries()), 20)
        for title, query in dashboard_queries():
            for name in METRIC.findall(query):
                self.assertIn(family(name), documented_metrics(), title)

    @unittest.skipUnless(yaml, "PyYAML is not installed")
    def test_every_metric_of_a_rule_is_documented(self):
        for rule in rules():
            for name in re.findall(r"(?<!:)" + METRIC.pattern + r"(?!:)",
                                   rule["expr"]):
                self.assertIn(family(name), documented_metrics(), rule)


class Dashboard(unittest.TestCase):
    def test_it_imports_everywhere(self):
        board = dashboard()
        self.assertEqual(board["schemaVersion"], 39)
        self.assertIsNone(board["id"])
        self.assertEqual(board["uid"], "headcount")

    def test_panels_have_a_source_a_description_and_a_place_of_their_own(self):
        panels = dashboard()["panels"]
        self.assertEqual(len({panel["id"] for panel in panels}), len(panels))
        taken = set()
        for panel in panels:
            place = panel["gridPos"]
            self.assertLessEqual(place["x"] + place["w"], 24, panel["title"])
            cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                     for y in range(place["y"], place["y"] + place["h"])}
            self.assertFalse(cells & taken, panel["title"])
            taken |= cells
            if panel["type"] != "row":
                self.assertEqual(panel["datasource"]["uid"], "${DS_PROMETHEUS}")
                self.assertTrue(panel["description"], panel["title"])


@unittest.skipUnless(yaml, "PyYAML is not installed")
class Manifests(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.objects = manifests("base")
        cls.pod = cls.objects["Deployment"]["spec"]["template"]
        cls.container = cls.pod["spec"]["containers"][0]

    def test_every_yaml_file_parses(self):
        paths = [path for room in ("deploy", "docker")
                 for path in glob.glob(f"{ROOT}/{room}/**/*.y*ml",
                                       recursive=True)]
        self.assertGreater(len(paths), 8)
        for path in paths:
            self.assertTrue(list(yaml.safe_load_all(read(path))), path)

    def test_selectors_find_the_pod(self):
        labels = self.pod["metadata"]["labels"]
        specs = {kind: item["spec"] for kind, item in self.objects.items()}
        spread, = self.pod["spec"]["topologySpreadConstraints"]
        for selector in (
                specs["Deployment"]["selector"]["matchLabels"],
                specs["Service"]["selector"],
                specs["PodDisruptionBudget"]["selector"]["matchLabels"],
                specs["NetworkPolicy"]["podSelector"]["matchLabels"],
                spread["labelSelector"]["matchLabels"]):
            self.assertTrue(selector)
            self.assertEqual(selector.items() & labels.items(),
                             selector.items())

    def test_ports_agree_with_the_server_file(self):
        server = yaml.safe_load(read("deploy/kubernetes/base/server.yaml"))
        ports = {port["name"]: port["containerPort"]
                 for port in self.container["ports"]}
        self.assertEqual(server["listen"], f"0.0.0.0:{ports['grpc']}")
        self.assertEqual(server["metrics_listen"],
                         f"0.0.0.0:{ports['metrics']}")
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            self.assertEqual(self.container[probe]["grpc"]["port"],
                             ports["grpc"])
        service = self.objects["Service"]["spec"]["ports"]
        self.assertEqual({port["targetPort"] for port in service}, {"grpc"})
        annotations = self.pod["metadata"]["annotations"]
        self.assertEqual(annotations["prometheus.io/port"],
                         str(ports["metrics"]))

    def test_each_port_is_open_to_somebody_and_none_to_everybody(self):
        policy = self.objects["NetworkPolicy"]["spec"]
        self.assertEqual(policy["policyTypes"], ["Ingress"])
        opened = [port["port"] for rule in policy["ingress"]
                  for port in rule["ports"]]
        self.assertEqual(sorted(opened), sorted(
            port["name"] for port in self.container["ports"]))
        for rule in policy["ingress"]:
            self.assertTrue(rule["from"], "without it, anybody may connect")
            self.assertNotIn({"namespaceSelector": {}}, rule["from"])

    def test_the_server_has_the_threads_that_the_pod_asked_for(self):
        server = yaml.safe_load(read("deploy/kubernetes/base/server.yaml"))
        self.assertEqual(str(server["threads"]),
                         self.container["resources"]["requests"]["cpu"])

    def test_documents_build_the_images_that_are_deployed(self):
        tags = set(re.findall(
            r"\bheadcount:dev[\w-]*",
            read("docker/Dockerfile") + read("docker/compose.yaml")))
        self.assertEqual(tags, {"headcount:dev", "headcount:dev-cuda"})
        for path in ("README.md", "docs/deployment.md"):
            built = re.findall(r"docker build [^`\n]*-t (\S+)", read(path))
            self.assertTrue(built, path)
            self.assertLessEqual(set(built), tags, path)
        for folder, tag in (("base", "dev"), ("gpu", "dev-cuda")):
            image, = yaml.safe_load(read(
                f"deploy/kubernetes/{folder}/kustomization.yaml"))["images"]
            self.assertIn(f"{image['name']}:{image['newTag']}", tags)
            self.assertEqual(image["newTag"], tag)

    def test_the_pod_outlives_the_drain(self):
        server = yaml.safe_load(read("deploy/kubernetes/base/server.yaml"))
        drain = sum(int(server["drain"][key].rstrip("s"))
                    for key in ("grace", "deadline"))
        self.assertGreater(self.pod["spec"]["terminationGracePeriodSeconds"],
                           drain)

    def test_the_container_has_no_rights_that_it_does_not_need(self):
        security = self.container["securityContext"]
        self.assertFalse(security["allowPrivilegeEscalation"])
        self.assertTrue(security["readOnlyRootFilesystem"])
        self.assertEqual(security["capabilities"], {"drop": ["ALL"]})
        pod = self.pod["spec"]["securityContext"]
        self.assertTrue(pod["runAsNonRoot"])
        self.assertEqual(pod["runAsUser"], 65532)
        self.assertEqual(pod["seccompProfile"], {"type": "RuntimeDefault"})
        self.assertFalse(self.pod["spec"]["automountServiceAccountToken"])
        self.assertIn("USER 65532", read("docker/Dockerfile"))

    def rendered(self, folder):
        """Its objects by kind, as `kubectl apply -k` would send them."""
        if not KUBECTL:
            self.skipTest("kubectl is not installed")
        done = subprocess.run(
            [KUBECTL, "kustomize", f"{ROOT}/deploy/kubernetes/{folder}"],
            capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return {item["kind"]: item
                for item in yaml.safe_load_all(done.stdout)}

    def test_the_gpu_overlay_is_the_base_on_a_gpu(self):
        objects = self.rendered("gpu")
        self.assertEqual(set(objects), {"ConfigMap", *self.objects})
        spec = objects["Deployment"]["spec"]["template"]["spec"]
        container = spec["containers"][0]
        self.assertEqual(container["resources"]["limits"]["nvidia.com/gpu"], 1)
        self.assertEqual(container["image"], "headcount:dev-cuda")
        for key in ("args", "ports", "readinessProbe", "securityContext"):
            self.assertEqual(container[key], self.container[key])
        server = yaml.safe_load(objects["ConfigMap"]["data"]["server.yaml"])
        self.assertEqual(server["device"], "cuda")
        self.assertEqual(str(server["threads"]),
                         container["resources"]["requests"]["cpu"])
        for key in ("listen", "metrics_listen", "admin", "drain", "models"):
            self.assertEqual(server[key], yaml.safe_load(
                read("deploy/kubernetes/base/server.yaml"))[key])

    def test_the_operator_scrapes_the_pods_under_the_name_alerts_ask_for(self):
        monitor = manifests("monitoring")["PodMonitor"]["spec"]
        labels = self.pod["metadata"]["labels"]
        selector = monitor["selector"]["matchLabels"]
        self.assertTrue(selector)
        self.assertLessEqual(selector.items(), labels.items())
        endpoint, = monitor["podMetricsEndpoints"]
        self.assertEqual(endpoint["port"], "metrics")
        self.assertIn("metrics",
                      [port["name"] for port in self.container["ports"]])
        self.assertEqual(
            endpoint["path"],
            self.pod["metadata"]["annotations"]["prometheus.io/path"])
        asked = {job for rule in rules()
                 for job in re.findall(r'job="(\w+)"', rule["expr"])}
        self.assertEqual(asked, {labels[monitor["jobLabel"]]})
        scraped = yaml.safe_load(read("deploy/prometheus/prometheus.yml"))
        self.assertLessEqual(asked, {
            config["job_name"] for config in scraped["scrape_configs"]})

    def test_the_operator_has_the_rules_of_prometheus(self):
        self.assertEqual(
            manifests("monitoring")["PrometheusRule"]["spec"]["groups"],
            groups(), "rules.yaml says how it is made anew")

    def test_the_monitoring_renders(self):
        self.assertEqual(self.rendered("monitoring"),
                         manifests("monitoring"))

    def test_what_git_ignores_is_not_sent_to_the_builder(self):
        ignored = [line.strip("/") for line in read(".gitignore").split()
                   if "*" not in line]
        self.assertIn("models/smollm2-135m", ignored)
        lines = [line for line in read(".dockerignore").splitlines()
                 if not line.startswith("#")]
        self.assertEqual(lines[0], "*")
        for line in lines[1:]:
            self.assertTrue(os.path.exists(f"{ROOT}/{line.lstrip('!')}"), line)
            for path in ignored:
                self.assertFalse(f"{path}/".startswith(f"{line[1:]}/"), path)
        self.assertEqual(glob.glob(f"{ROOT}/docker/*ignore"), [],
                         "it would stand in for .dockerignore")

    def test_images_of_all_devices_run_the_same(self):
        stages = re.split(r"^FROM ", read("docker/Dockerfile"), flags=re.M)
        last = {stage.split(" AS ")[1].split()[0]: stage
                for stage in stages if " AS " in stage}
        self.assertIn("USER 65532:65532", last["image"])
        for device in ("cpu", "cuda"):
            self.assertTrue(last[device].startswith("image AS "))
            self.assertIn(f"COPY --from=collect-{device} /image /",
                          last[device])
        self.assertTrue(stages[-1].startswith("image AS cpu"),
                        "what is built without --target")


if __name__ == "__main__":
    ROOT = os.path.abspath(sys.argv.pop(1))
    unittest.main(verbosity=2)

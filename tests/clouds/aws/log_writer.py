"""What a training job prints, on its way to CloudWatch: lines to its log streams, numbers in them to its metrics."""

import collections
import re
import threading
import time

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
METRICS = "/aws/sagemaker/TrainingJobs"


class LogWriter:
    """Hands lines on to CloudWatch in batches, as late as the cloud is slow, and reads the metrics out of them."""

    def __init__(self, cloud, request: dict, metrics: dict[str, tuple[float, float]]) -> None:
        """``metrics``: filled with the last value of each metric of the request, and its time."""
        self.cloud, self.metrics = cloud, metrics
        self.job_name = request["TrainingJobName"]
        self._waiting: collections.deque[tuple[str, float, str]] = collections.deque()
        self._definitions = [
            (each["Name"], re.compile(each["Regex"]))
            for each in request["AlgorithmSpecification"].get("MetricDefinitions", [])
        ]
        self._done = threading.Event()
        self._last: dict[str, int] = {}
        self._thread = threading.Thread(target=self._pump, daemon=True)

    def open(self, stream: str):
        if not self._thread.is_alive():
            self._thread.start()
        logs = self.cloud.logs
        with self.cloud.log_lock:
            if not logs.describe_log_groups(logGroupNamePrefix=LOG_GROUP)["logGroups"]:
                logs.create_log_group(logGroupName=LOG_GROUP)
            logs.create_log_stream(logGroupName=LOG_GROUP, logStreamName=stream)
        return lambda when, text: self._waiting.append((stream, when, text))

    def close(self) -> None:
        """All that was printed arrives, some of it after the job's end where the cloud is slow."""
        self._done.set()
        if self._thread.ident is not None and not self.cloud.log_seconds:
            self._thread.join(30)

    def _pump(self) -> None:
        while True:
            done = self._done.is_set()
            self._flush(time.time() - self.cloud.log_seconds)
            if done and not self._waiting:
                return
            time.sleep(0.1)

    def _flush(self, until: float) -> None:
        batches: dict[str, list[dict]] = {}
        while self._waiting and self._waiting[0][1] <= until:
            stream, when, text = self._waiting.popleft()
            stamp = max(int(when * 1000), self._last.get(stream, 0))
            self._last[stream] = stamp
            batches.setdefault(stream, []).append({"timestamp": stamp, "message": text or " "})
            self._measure(when, text)
        for stream, events in batches.items():
            with self.cloud.log_lock:
                self.cloud.logs.put_log_events(logGroupName=LOG_GROUP, logStreamName=stream, logEvents=events)

    def _measure(self, when: float, text: str) -> None:
        for name, pattern in self._definitions:
            match = pattern.search(text)
            if match:
                value = float(match[1])
                self.metrics[name] = (value, when)
                dimensions = [{"Name": "TrainingJobName", "Value": self.job_name}]
                data = [{"MetricName": name, "Dimensions": dimensions, "Timestamp": when, "Value": value}]
                self.cloud.cloudwatch.put_metric_data(Namespace=METRICS, MetricData=data)

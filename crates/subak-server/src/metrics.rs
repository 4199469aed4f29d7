//! What is counted, as `OpenMetrics` text.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

/// A number with its meaning.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its name without what its kind adds.
    pub name: &'static str,
    /// What it counts, one sentence without a full stop.
    pub help: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// Its values.
    pub samples: Vec<Sample>,
}

/// How a number moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Up and down.
    Gauge,
    /// Up, from when the process began.
    Counter,
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// What it is of: names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

#[derive(Debug)]
struct Found(Vec<Metric>);

impl Collector for Found {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for metric in &self.0 {
            let kind = match metric.kind {
                Kind::Gauge => MetricType::Gauge,
                Kind::Counter => MetricType::Counter,
            };
            let mut encoder = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            if let [Sample { labels, value }] = metric.samples.as_slice()
                && labels.is_empty()
            {
                One(metric.kind, *value).encode(encoder)?;
                continue;
            }
            for sample in &metric.samples {
                let labels: Vec<(&str, String)> = sample.labels.iter().map(|(name, value)| (*name, escaped(value))).collect();
                let family = encoder.encode_family(&labels)?;
                One(metric.kind, sample.value).encode(family)?;
            }
        }
        Ok(())
    }
}

/// A value of a label as the format has it; the library leaves it as it is.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

struct One(Kind, f64);

impl EncodeMetric for One {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        match self.0 {
            Kind::Gauge => encoder.encode_gauge(&self.1),
            Kind::Counter => encoder.encode_counter::<NoLabelSet, _, u64>(&self.1, None),
        }
    }

    fn metric_type(&self) -> MetricType {
        match self.0 {
            Kind::Gauge => MetricType::Gauge,
            Kind::Counter => MetricType::Counter,
        }
    }
}

/// The metrics as text.
pub(crate) fn text(metrics: &[Metric]) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Found(metrics.to_vec())));
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => text,
        // Writing to memory does not fail.
        Err(error) => format!("# {error}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_text() {
        let sample = |job: &str, value: f64| Sample { labels: vec![("job", job.to_owned())], value };
        let metrics = [
            Metric {
                name: "subak_queue_runs",
                help: "Runs that wait",
                kind: Kind::Gauge,
                samples: vec![Sample { labels: Vec::new(), value: 2.0 }],
            },
            Metric { name: "subak_runs_ended", help: "Runs that ended", kind: Kind::Counter, samples: vec![sample("a\"b", 3.0)] },
        ];
        let expected = "# HELP subak_queue_runs Runs that wait\n# TYPE subak_queue_runs gauge\nsubak_queue_runs 2.0\n\
            # HELP subak_runs_ended Runs that ended\n# TYPE subak_runs_ended counter\nsubak_runs_ended_total{job=\"a\\\"b\"} 3.0\n# EOF\n";
        assert_eq!(text(&metrics), expected);
    }
}

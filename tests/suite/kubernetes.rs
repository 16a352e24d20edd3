//! On Kubernetes: the chart, the injector, the image, and the whole way of a request through a pod.

mod certificate;
mod chart;
mod image;
mod injector;
mod kubelet;
mod node;
mod tools;
mod way;

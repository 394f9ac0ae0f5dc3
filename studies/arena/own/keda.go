// KEDA: an HPA with an external metric of type AverageValue, which KEDA creates for a ScaledObject,
// and the HPA controller, which decides. KEDA itself scales a service from and to zero only, and all
// services here keep a replica; in between it passes on the value of a trigger. That and the
// threshold are written as by quantityFromFloat64 of KEDA 2.21.0 (pkg/scalers/scaler.go), which is
// restated here: the package cannot be built without the clients of all systems that KEDA reads.
package main

import (
	"encoding/json"
	"fmt"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// kedaSettings are of the first line: the share of its time that a replica is busy at the threshold.
type kedaSettings struct {
	Utilization float64 `json:"utilization"`
}

func beginKEDA(start Start) (Autoscaler, error) {
	settings := kedaSettings{Utilization: 0.8}
	if err := json.Unmarshal(start.Settings, &settings); err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	of := func(job Job) autoscalingv2.HorizontalPodAutoscalerSpec {
		threshold := quantity(settings.Utilization / job.BusyS)
		return autoscalingv2.HorizontalPodAutoscalerSpec{Metrics: []autoscalingv2.MetricSpec{{
			Type: autoscalingv2.ExternalMetricSourceType,
			External: &autoscalingv2.ExternalMetricSource{
				Metric: autoscalingv2.MetricIdentifier{
					Name:     "s0-prometheus",
					Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": job.Name}},
				},
				Target: autoscalingv2.MetricTarget{
					Type: autoscalingv2.AverageValueMetricType, AverageValue: &threshold,
				},
			},
		}}}
	}
	return newController(start, of)
}

func quantity(value float64) resource.Quantity {
	return resource.MustParse(fmt.Sprintf("%.3f", value))
}

// Knative's autoscaler: its decider, its windows of buckets of a second, and the settings of
// MakeDecider for an empty config-autoscaler. All of them are told the time. Its metric collector
// reads the system's clock, so that its loop is restated here: it scrapes each second, and an
// observation stands for the seconds since the last one.
package main

import (
	"context"
	"time"

	"go.uber.org/zap"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	autoscalingv1alpha1 "knative.dev/serving/pkg/apis/autoscaling/v1alpha1"
	"knative.dev/serving/pkg/autoscaler/aggregation"
	"knative.dev/serving/pkg/autoscaler/config"
	"knative.dev/serving/pkg/autoscaler/metrics"
	"knative.dev/serving/pkg/autoscaler/scaling"
	"knative.dev/serving/pkg/reconciler/autoscaling/kpa/resources"
)

type knative struct {
	jobs      []Job
	revisions []*revision
	deciders  []scaling.UniScaler
}

func beginKnative(start Start) (Autoscaler, error) {
	settings, err := config.NewConfigFromMap(map[string]string{})
	if err != nil {
		return nil, err
	}
	k := &knative{jobs: start.Jobs}
	for _, job := range start.Jobs {
		pa := &autoscalingv1alpha1.PodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{Name: job.Name, Namespace: namespace},
			Spec:       autoscalingv1alpha1.PodAutoscalerSpec{ContainerConcurrency: 1},
		}
		decider := resources.MakeDecider(pa, settings)
		stable := decider.Spec.StableWindow
		panics := time.Duration(float64(stable) * settings.PanicWindowPercentage / 100)
		one := &revision{
			scraped: epoch,
			stable:  aggregation.NewTimedFloat64Buckets(stable, config.BucketSize),
			panics:  aggregation.NewTimedFloat64Buckets(panics, config.BucketSize),
		}
		k.revisions = append(k.revisions, one)
		k.deciders = append(k.deciders, scaling.New(
			context.Background(), namespace, job.Name, one, one, &decider.Spec,
		))
	}
	return k, nil
}

// epoch is the time 0 of a run. The buckets begin at full seconds.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func (k *knative) Show(tick Tick) {
	for n, one := range k.revisions {
		one.scrape(epoch.Add(seconds(tick.NowS)), tick.Ongoing[n])
		one.ready = int(tick.Running[n])
	}
}

func (k *knative) Decide(tick Tick) ([]int32, error) {
	targets := append([]int32{}, tick.Target...)
	for n, decider := range k.deciders {
		result := decider.Scale(zap.NewNop().Sugar(), epoch.Add(seconds(tick.NowS)))
		if result.ScaleValid {
			targets[n] = min(max(result.DesiredPodCount, k.jobs[n].Min), k.jobs[n].Max)
		}
	}
	return targets, nil
}

// revision has the pods of a job and their concurrent requests.
type revision struct {
	stable, panics *aggregation.TimedFloat64Buckets
	scraped        time.Time
	ready          int
}

// scrape records an observation for each second since the last one.
func (r *revision) scrape(now time.Time, ongoing *float64) {
	for r.scraped.Before(now) {
		r.scraped = r.scraped.Add(time.Second)
		if ongoing != nil {
			r.stable.Record(r.scraped, *ongoing)
			r.panics.Record(r.scraped, *ongoing)
		}
	}
}

func (r *revision) StableAndPanicConcurrency(_ types.NamespacedName, now time.Time) (float64, float64, error) {
	if r.stable.IsEmpty(now) && r.panics.IsEmpty(now) {
		return 0, 0, metrics.ErrNoData
	}
	return r.stable.WindowAverage(now), r.panics.WindowAverage(now), nil
}

func (r *revision) StableAndPanicRPS(types.NamespacedName, time.Time) (float64, float64, error) {
	return 0, 0, metrics.ErrNoData
}

func (r *revision) ReadyCount() (int, error) { return r.ready, nil }

func (r *revision) NotReadyCount() (int, error) { return 0, nil }

// The HPA controller of kube-controller-manager, run as a whole by its exported functions: queue,
// replica calculator, stabilization and behavior. What surrounds it in a cluster is replaced here:
// the pods, the scale of each service, and the metrics.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/go-logr/logr"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	autoscalingtyped "k8s.io/client-go/kubernetes/typed/autoscaling/v2"
	coretyped "k8s.io/client-go/kubernetes/typed/core/v1"
	autoscalinglisters "k8s.io/client-go/listers/autoscaling/v2"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	defaults "k8s.io/kubernetes/pkg/apis/autoscaling/v2"
	"k8s.io/kubernetes/pkg/controller/podautoscaler"
	"k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
)

// Defaults of the flags --horizontal-pod-autoscaler-* and of metrics-server's --metric-resolution,
// and the age of the pods at the start of the run.
const (
	downscaleStabilization = 5 * time.Minute
	tolerance              = 0.1
	cpuInitialization      = 5 * time.Minute
	initialReadinessDelay  = 30 * time.Second
	metricWindow           = 15 * time.Second
	longAgo                = time.Hour
	namespace              = "faro"
)

// hpaSettings are of the first line: a CPU target in per cent, and a `behavior` as in YAML.
type hpaSettings struct {
	Utilization int32                                          `json:"utilization"`
	Behavior    *autoscalingv2.HorizontalPodAutoscalerBehavior `json:"behavior"`
}

func beginHPA(start Start) (Autoscaler, error) {
	settings := hpaSettings{Utilization: 80}
	if err := json.Unmarshal(start.Settings, &settings); err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	metric := autoscalingv2.MetricSpec{
		Type: autoscalingv2.ResourceMetricSourceType,
		Resource: &autoscalingv2.ResourceMetricSource{
			Name: corev1.ResourceCPU,
			Target: autoscalingv2.MetricTarget{
				Type: autoscalingv2.UtilizationMetricType, AverageUtilization: &settings.Utilization,
			},
		},
	}
	of := func(Job) autoscalingv2.HorizontalPodAutoscalerSpec {
		return autoscalingv2.HorizontalPodAutoscalerSpec{
			Metrics: []autoscalingv2.MetricSpec{metric}, Behavior: settings.Behavior.DeepCopy(),
		}
	}
	return newController(start, of)
}

// controller is the HPA controller with a cluster of pods, scales and metrics.
type controller struct {
	mutex  sync.Mutex
	jobs   []Job
	index  map[string]int // of a job, by its name
	tick   Tick
	wanted []int32
	pods   [][]*corev1.Pod // by job: ready ones first, each group by age
	made   int             // pods so far
	store  cache.Indexer
	period time.Duration
	run    func()    // starts the controller, once
	cpu    []float64 // cores that each replica of a job uses, from the rate of the last complete minute
}

func newController(start Start, specOf func(Job) autoscalingv2.HorizontalPodAutoscalerSpec) (*controller, error) {
	klog.SetLogger(logr.Discard())
	utilruntime.ErrorHandlers = nil // they would wait from a time outside the bubble on
	ctx := context.Background()
	c := &controller{
		jobs: start.Jobs, index: map[string]int{}, pods: make([][]*corev1.Pod, len(start.Jobs)),
		period: seconds(start.TickS),
		wanted: make([]int32, len(start.Jobs)),
	}
	var list autoscalingv2.HorizontalPodAutoscalerList
	for n, job := range start.Jobs {
		c.index[job.Name] = n
		hpa := autoscalingv2.HorizontalPodAutoscaler{
			ObjectMeta: metav1.ObjectMeta{Name: job.Name, Namespace: namespace, UID: types.UID(job.Name), ResourceVersion: "1"},
			Spec:       specOf(job),
		}
		least := job.Min
		hpa.Spec.MinReplicas, hpa.Spec.MaxReplicas = &least, job.Max
		hpa.Spec.ScaleTargetRef = autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "Deployment", Name: job.Name}
		defaults.SetDefaults_HorizontalPodAutoscaler(&hpa)
		list.Items = append(list.Items, hpa)
	}
	list.ResourceVersion = "1"
	hpas := informer(&list, &autoscalingv2.HorizontalPodAutoscaler{})
	pods := informer(&corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}}, &corev1.Pod{})
	c.store = pods.GetIndexer()
	mapper := apimeta.NewDefaultRESTMapper([]schema.GroupVersion{{Group: "apps", Version: "v1"}})
	mapper.Add(schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}, apimeta.RESTScopeNamespace)
	one := podautoscaler.NewHorizontalController(
		ctx, events{}, c, statuses{}, mapper, c, hpaInformer{hpas}, podInformer{pods}, c.period,
		downscaleStabilization, tolerance, cpuInitialization, initialReadinessDelay,
	)
	go hpas.RunWithContext(ctx)
	go pods.RunWithContext(ctx)
	cache.WaitForCacheSync(ctx.Done(), hpas.HasSynced, pods.HasSynced)
	c.run = sync.OnceFunc(func() { go one.Run(ctx, 1) })
	return c, nil
}

func (c *controller) Show(tick Tick) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	first := c.cpu == nil
	c.tick = tick
	c.cpu = make([]float64, len(c.jobs))
	copy(c.wanted, tick.Target)
	for n, job := range c.jobs {
		busy := known(tick.RateRps[n]) * known(tick.BusyS[n])
		c.cpu[n] = math.Min(1, busy/math.Max(float64(tick.Running[n]), 1)) * job.Cores
		c.follow(n, tick, first)
	}
}

// follow makes the pods of a job those of the observation. A pod that is ready at the first tick is
// old; others have been created or become ready now.
func (c *controller) follow(n int, tick Tick, first bool) {
	now := metav1.NewTime(time.Now().Add(moment))
	since := now
	if first {
		since = metav1.NewTime(now.Add(-longAgo))
	}
	ready, starting := []*corev1.Pod{}, []*corev1.Pod{}
	for _, pod := range c.pods[n] {
		if pod.Status.Phase == corev1.PodRunning {
			ready = append(ready, pod)
		} else {
			starting = append(starting, pod)
		}
	}
	for len(ready) > int(tick.Running[n]) { // the youngest go first, as those of a ReplicaSet
		last := ready[len(ready)-1]
		c.store.Delete(last)
		ready = ready[:len(ready)-1]
	}
	for len(ready) < int(tick.Running[n]) {
		if len(starting) == 0 {
			starting = append(starting, c.newPod(n, since))
		}
		pod := starting[0].DeepCopy()
		starting = starting[1:]
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{
			Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: since,
		}}
		c.store.Update(pod)
		ready = append(ready, pod)
	}
	for len(starting) > int(max(tick.Starting[n], 0)) {
		last := starting[len(starting)-1]
		c.store.Delete(last)
		starting = starting[:len(starting)-1]
	}
	for len(starting) < int(tick.Starting[n]) {
		starting = append(starting, c.newPod(n, now))
	}
	c.pods[n] = append(ready, starting...)
}

func (c *controller) newPod(n int, at metav1.Time) *corev1.Pod {
	c.made++
	job := c.jobs[n]
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: fmt.Sprintf("%s-%d", job.Name, c.made), Namespace: namespace,
			Labels: map[string]string{"app": job.Name},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "replica",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
				corev1.ResourceCPU: *resource.NewMilliQuantity(int64(math.Round(job.Cores*1000)), resource.DecimalSI),
			}},
		}}},
		Status: corev1.PodStatus{Phase: corev1.PodPending, StartTime: &at},
	}
	c.store.Add(pod)
	return pod
}

// Decide returns what the controller has written into the scales. It begins with the first tick and
// continues by its own queue, at the same times as the ticks.
func (c *controller) Decide(Tick) ([]int32, error) {
	c.run()
	time.Sleep(500 * time.Millisecond)
	settle()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return append([]int32{}, c.wanted...), nil
}

// The scale subresource of each job.

func (c *controller) Scales(string) scale.ScaleInterface { return scales{c: c} }

type scales struct {
	scale.ScaleInterface
	c *controller
}

func (s scales) Get(_ context.Context, _ schema.GroupResource, name string, _ metav1.GetOptions) (*autoscalingv1.Scale, error) {
	s.c.mutex.Lock()
	defer s.c.mutex.Unlock()
	n := s.c.index[name]
	return &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
		Spec:       autoscalingv1.ScaleSpec{Replicas: s.c.wanted[n]},
		Status:     autoscalingv1.ScaleStatus{Replicas: int32(len(s.c.pods[n])), Selector: "app=" + name},
	}, nil
}

func (s scales) Update(_ context.Context, _ schema.GroupResource, one *autoscalingv1.Scale, _ metav1.UpdateOptions) (*autoscalingv1.Scale, error) {
	s.c.mutex.Lock()
	defer s.c.mutex.Unlock()
	s.c.wanted[s.c.index[one.Name]] = one.Spec.Replicas
	return one, nil
}

// The metrics. A pod's use of CPU is that of the observation, as if metrics-server had just seen it.

func (c *controller) GetResourceMetric(_ context.Context, _ corev1.ResourceName, _ string, selector labels.Selector, _ string) (metrics.PodMetricsInfo, time.Time, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	n := c.selected(selector)
	at := time.Now()
	if c.tick.RateRps[n] == nil || c.tick.BusyS[n] == nil {
		return nil, at, fmt.Errorf("no metric yet")
	}
	used := resource.NewScaledQuantity(int64(math.Round(c.cpu[n]*1e9)), resource.Nano)
	found := metrics.PodMetricsInfo{}
	for _, pod := range c.pods[n] {
		if pod.Status.Phase == corev1.PodRunning {
			found[pod.Name] = metrics.PodMetric{Timestamp: at, Window: metricWindow, Value: used.MilliValue()}
		}
	}
	return found, at, nil
}

func (c *controller) selected(selector labels.Selector) int {
	name, _ := selector.RequiresExactMatch("app")
	return c.index[name]
}

func (c *controller) GetRawMetric(string, string, labels.Selector, labels.Selector) (metrics.PodMetricsInfo, time.Time, error) {
	return nil, time.Time{}, fmt.Errorf("no such metric")
}

func (c *controller) GetObjectMetric(string, string, *autoscalingv2.CrossVersionObjectReference, labels.Selector) (int64, time.Time, error) {
	return 0, time.Time{}, fmt.Errorf("no such metric")
}

func (c *controller) GetExternalMetric(_ string, _ string, selector labels.Selector) ([]int64, time.Time, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	n := c.selected(selector)
	if c.tick.RateRps[n] == nil {
		return nil, time.Now(), fmt.Errorf("no metric yet")
	}
	value := quantity(*c.tick.RateRps[n])
	return []int64{value.MilliValue()}, time.Now(), nil
}

// What the controller needs besides: informers of constant lists, statuses and events that nobody
// reads.

func informer(list runtime.Object, of runtime.Object) cache.SharedIndexInformer {
	source := &cache.ListWatch{
		ListFunc:  func(metav1.ListOptions) (runtime.Object, error) { return list, nil },
		WatchFunc: func(metav1.ListOptions) (watch.Interface, error) { return watch.NewFake(), nil },
	}
	by := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
	return cache.NewSharedIndexInformer(withoutWatchList{source}, of, 0, by)
}

// withoutWatchList says that lists come from List, not from a watch.
type withoutWatchList struct{ *cache.ListWatch }

func (withoutWatchList) IsWatchListSemanticsUnSupported() bool { return true }

type hpaInformer struct{ informer cache.SharedIndexInformer }

func (i hpaInformer) Informer() cache.SharedIndexInformer { return i.informer }
func (i hpaInformer) Lister() autoscalinglisters.HorizontalPodAutoscalerLister {
	return autoscalinglisters.NewHorizontalPodAutoscalerLister(i.informer.GetIndexer())
}

type podInformer struct{ informer cache.SharedIndexInformer }

func (i podInformer) Informer() cache.SharedIndexInformer { return i.informer }
func (i podInformer) Lister() corelisters.PodLister {
	return corelisters.NewPodLister(i.informer.GetIndexer())
}

type statuses struct {
	autoscalingtyped.HorizontalPodAutoscalerInterface
}

func (s statuses) HorizontalPodAutoscalers(string) autoscalingtyped.HorizontalPodAutoscalerInterface {
	return s
}

func (statuses) UpdateStatus(_ context.Context, hpa *autoscalingv2.HorizontalPodAutoscaler, _ metav1.UpdateOptions) (*autoscalingv2.HorizontalPodAutoscaler, error) {
	return hpa, nil
}

type events struct{ coretyped.EventInterface }

func (e events) Events(string) coretyped.EventInterface { return e }

func (events) CreateWithEventNamespace(event *corev1.Event) (*corev1.Event, error) {
	return event, nil
}

func (events) PatchWithEventNamespace(event *corev1.Event, _ []byte) (*corev1.Event, error) {
	return event, nil
}

func (events) UpdateWithEventNamespace(event *corev1.Event) (*corev1.Event, error) {
	return event, nil
}

// The autoscalers of other projects behind one protocol: a line of JSON per tick in, a line with the
// replicas that they ask for out. The first line describes the jobs; its answer names the versions.
//
// Kubernetes reads the system's clock. It runs inside a bubble of testing/synctest, where that clock
// stands still until all goroutines wait, and then jumps: it shows the simulated time.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Job is one service of the first line. Cores is what one replica requests.
type Job struct {
	Name  string  `json:"name"`
	Min   int32   `json:"min_replicas"`
	Max   int32   `json:"max_replicas"`
	Cores float64 `json:"cores"`
	BusyS float64 `json:"busy_s"`
}

// Start is the first line. Settings belong to one autoscaler.
type Start struct {
	Jobs     []Job           `json:"jobs"`
	TickS    float64         `json:"tick_s"`
	Settings json.RawMessage `json:"settings"`
}

// Tick is an observation, with one number per job; null means unknown.
type Tick struct {
	NowS     float64    `json:"now_s"`
	Capacity float64    `json:"capacity"`
	Running  []int32    `json:"running"`
	Starting []int32    `json:"starting"`
	Target   []int32    `json:"target"`
	RateRps  []*float64 `json:"rate_rps"`
	BusyS    []*float64 `json:"busy_s"`
	Ongoing  []*float64 `json:"ongoing"`
}

// Autoscaler is one project's code. Show is called a moment before the tick, and Decide at its time.
type Autoscaler interface {
	Show(Tick)
	Decide(Tick) ([]int32, error)
}

// kind is an autoscaler. With a clock, it runs inside a bubble.
type kind struct {
	begin  func(Start) (Autoscaler, error)
	module string
	clock  bool
}

var kinds = map[string]kind{
	"hpa":     {beginHPA, "k8s.io/kubernetes", true},
	"keda":    {beginKEDA, "k8s.io/kubernetes", true},
	"knative": {beginKnative, "knative.dev/serving", false},
}

// moment is how long before a tick the autoscaler is shown what the tick observed.
const moment = time.Millisecond

func main() {
	if len(os.Args) != 2 || kinds[os.Args[1]].begin == nil {
		fmt.Fprintln(os.Stderr, "usage: own hpa|keda|knative")
		os.Exit(2)
	}
	one := kinds[os.Args[1]]
	if !one.clock {
		one.answer(func(float64) {}, func(float64) {})
	}
	serve := func(t *testing.T) {
		synctest.Test(t, func(*testing.T) {
			epoch := time.Now().Add(moment)
			at := func(nowS float64) time.Time { return epoch.Add(seconds(nowS)) }
			one.answer(
				func(nowS float64) { time.Sleep(time.Until(at(nowS).Add(-moment))) },
				func(nowS float64) { time.Sleep(time.Until(at(nowS))) },
			)
		})
	}
	os.Args = os.Args[:1] // the rest is for the package testing
	testing.Init()
	all := func(string, string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "own", F: serve}}, nil, nil)
}

func seconds(value float64) time.Duration { return time.Duration(value * float64(time.Second)) }

// version of a module in this program.
func version(module string) string {
	build, _ := debug.ReadBuildInfo()
	for _, one := range build.Deps {
		if one.Path == module {
			return strings.TrimPrefix(one.Version, "v")
		}
	}
	return "unknown"
}

// answer reads lines until the input ends or something fails, and ends the program. `before` and
// `until` wait for a moment before a tick and for the tick.
func (one kind) answer(before, until func(nowS float64)) {
	lines := bufio.NewReaderSize(os.Stdin, 1<<20)
	reply := json.NewEncoder(os.Stdout)
	fail := func(err error) {
		reply.Encode(map[string]string{"error": err.Error()})
		os.Exit(1)
	}
	var start Start
	text, _ := lines.ReadBytes('\n')
	if err := json.Unmarshal(text, &start); err != nil {
		fail(fmt.Errorf("first line: %w", err))
	}
	autoscaler, err := one.begin(start)
	if err != nil {
		fail(err)
	}
	reply.Encode(map[string]any{"versions": map[string]string{one.module: version(one.module)}})
	for {
		text, err := lines.ReadBytes('\n')
		if err != nil {
			os.Exit(0) // the other side has closed the pipe
		}
		var tick Tick
		if err := json.Unmarshal(text, &tick); err != nil {
			fail(fmt.Errorf("a tick: %w", err))
		}
		before(tick.NowS)
		autoscaler.Show(tick)
		until(tick.NowS)
		targets, err := autoscaler.Decide(tick)
		if err != nil {
			fail(err)
		}
		reply.Encode(map[string][]int32{"target": targets})
	}
}

func known(value *float64) float64 {
	if value == nil {
		return 0
	}
	return *value
}

// settle waits until all other goroutines wait for a later time.
func settle() { synctest.Wait() }

package optimize

import (
	"strings"
	"sync"
	"testing"
)

func TestLogAndCounters(t *testing.T) {
	var mu sync.Mutex
	var heard []string
	log := func(level LogLevel, target, message string) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, target+": "+message)
		if level > LogLevelInfo {
			t.Errorf("level %d: %s", level, message)
		}
	}
	library := must(NewContext(&ContextOptions{Log: log, LogLevel: LogLevelInfo}))
	before := must(library.Counters())
	model := must(library.Load(ctx, minilm(t)))
	defer model.Close()
	session := must(library.NewSession(ctx, model, nil))
	defer session.Close()
	after := must(library.Counters())
	if after.ModelsLoaded != before.ModelsLoaded+1 || after.SessionsCreated != before.SessionsCreated+1 {
		t.Errorf("%+v, then %+v", before, after)
	}
	text := must(library.CountersText(CountersPrometheus))
	if !strings.Contains(text, "# TYPE optimize_runs_total counter") {
		t.Errorf("the text is %q", text)
	}
	library.Close()
	count := len(heard)
	if all := strings.Join(heard, "\n"); !strings.Contains(all, "optimize: ") || !strings.Contains(all, "session on cpu") {
		t.Errorf("heard %q", all)
	}
	other := must(NewContext(nil))
	defer other.Close()
	must(other.Load(ctx, minilm(t))).Close()
	if len(heard) != count {
		t.Errorf("heard %q after Close", heard[count:])
	}
}

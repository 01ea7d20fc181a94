package optimize

import (
	"errors"
	"strings"
	"testing"
)

func TestSessionsRunOnWhatIsAskedForAndSayWhat(t *testing.T) {
	library, model, _ := load(t)
	found := must(library.Providers(0))
	if len(found) != 3 || !found[2].Available || found[2].Provider != "cpu" {
		t.Fatalf("providers: %+v", found)
	}
	session := must(library.NewSession(ctx, model, &SessionOptions{Execution: Execution{Provider: ProviderAuto}}))
	defer session.Close()
	placement := must(session.Placement())
	if placement.Provider == "" || len(placement.Nodes) == 0 {
		t.Fatalf("placement: %+v", placement)
	}
	if placement.Provider == "cpu" && len(placement.PassedOver) != 2 {
		t.Fatalf("passed over: %+v", placement.PassedOver)
	}
	_, err := library.NewSession(ctx, model, &SessionOptions{Execution: Execution{Provider: ProviderCUDA}})
	if !found[1].Available && !errors.Is(err, ErrBackendMissing) && !errors.Is(err, ErrDeviceMissing) {
		t.Fatalf("cuda: %v, though %s", err, found[1].Reason)
	}
	cache := Execution{Provider: ProviderTensorRT, EngineCache: "engines"}
	_, err = library.Benchmark(ctx, model, model, &BenchmarkOptions{Runs: 1, Execution: cache})
	if !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), "absolute") {
		t.Fatalf("a relative folder: %v", err)
	}
}

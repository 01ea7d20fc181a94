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
	stock := must(library.NewSession(ctx, model, &SessionOptions{Execution: Execution{Kernels: KernelsStock}}))
	defer stock.Close()
	if placement := must(stock.Placement()); placement.Groups != 0 || placement.KernelsUnused != "" {
		t.Fatalf("stock kernels: %+v", placement)
	}
	both := &SessionOptions{Execution: Execution{Kernels: KernelsStock, Precision: SessionINT8}}
	if _, err := library.NewSession(ctx, model, both); !errors.Is(err, ErrInvalidArgument) {
		t.Fatalf("int8 on stock kernels: %v", err)
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

// modelWithEngine is an ONNX model with the single node y = EPContext(x). Such a node refers to an engine, so that the
// model needs TrustEngines.
const modelWithEngine = "\010\010:G\012\040\012\001x\022\001y\042\011EPContext:\015com.microsoft\022\001gZ\017\012" +
	"\001x\022\012\012\010\010\001\022\004\012\002\010\001b\017\012\001y\022\012\012\010\010" +
	"\001\022\004\012\002\010\001B\002\020\021B\021\012\015com.microsoft\020\001"

func TestEnginesInModelsOfStrangersAreRefused(t *testing.T) {
	library, _, _ := load(t)
	strange := must(library.LoadMemory(ctx, []byte(modelWithEngine)))
	defer strange.Close()
	options := &SessionOptions{Execution: Execution{Provider: ProviderCUDA}}
	if _, err := library.NewSession(ctx, strange, options); !errors.Is(err, ErrUntrusted) {
		t.Fatalf("not trusted: %v", err)
	}
	options.TrustEngines = true // the model contains no engine, so the provider refuses it for another reason
	if _, err := library.NewSession(ctx, strange, options); err == nil || errors.Is(err, ErrUntrusted) {
		t.Fatalf("trusted: %v", err)
	}
}

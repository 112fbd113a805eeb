package gpu

// Figures are how a GPU, or an instance of one, is at the moment. What it does
// not tell is nil.
type Figures struct {
	UUID string

	Utilization      *int64 // percent of the last moments in which something ran on it
	MemoryActivity   *int64 // percent in which its memory was read or written
	Encoder, Decoder *int64 // percent

	MemoryUsed, MemoryFree *int64 // bytes

	Temperature, MemoryTemperature *int64 // °C
	Power, PowerLimit              *int64 // mW
	Energy                         *int64 // mJ since the driver was loaded
	SMClock, MemoryClock           *int64 // MHz
	PCIeReplays                    *int64

	ECC *ECC // nil: it has none, or it is off

	XID       int64 // the last error that the driver told while buoyd watched; 0: none
	Processes []Process
}

// ECC counts errors of memory that checks itself.
type ECC struct {
	Corrected, Uncorrected           int64 // since the driver was loaded
	CorrectedTotal, UncorrectedTotal int64 // in the life of the GPU
}

// Process is a program that uses a GPU.
type Process struct {
	PID      int    // as the machine numbers it
	Memory   *int64 // bytes of the GPU's
	Instance string // UUID of the instance it uses; "": the GPU as a whole
	Graphics bool   // it draws rather than computes
}

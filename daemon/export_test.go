package daemon

import "time"

// SetDevicePeriod sets the time between two looks at the devices.
func SetDevicePeriod(d time.Duration) (restore func()) {
	old := devicePeriod
	devicePeriod = d
	return func() { devicePeriod = old }
}

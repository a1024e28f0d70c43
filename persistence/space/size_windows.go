package space

import "golang.org/x/sys/windows"

// size asks the volume of dir.
func size(dir string) (Size, error) {
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return Size{}, err
	}
	var free, total, all uint64
	if err := windows.GetDiskFreeSpaceEx(name, &free, &total, &all); err != nil {
		return Size{}, err
	}
	return Size{Free: int64(free), Total: int64(total)}, nil
}

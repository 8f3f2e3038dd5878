package lane

var (
	Check = check
	Open  = open
)

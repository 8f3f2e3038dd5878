package lane

var Check = check

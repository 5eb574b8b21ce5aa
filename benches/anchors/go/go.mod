module anchor

go 1.22

module github.com/fingerpost/fingerpost/hack/tools

go 1.26.0

from activations.cli import main

main()

"""How is it shown which shares of the data and of the model do no worse together than all of both?"""
